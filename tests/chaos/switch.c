/* switch: an Ethernet switch in user space, for hosts that are network namespaces.
 *
 *   switch SEED NAMESPACE...
 *
 * Makes a tap device eth0 in each namespace; the n-th namespace is port n, and its eth0 has the address
 * 02:00:00:00:00:n. A frame goes to the port in the last byte of its destination address, or to all others
 * when the address is that of a group. Each ordered pair of ports has its own link, which commands on
 * standard input change, a command a line:
 *
 *   cut FROM TO      drop every frame of this direction
 *   heal FROM TO     let frames pass again, unchanged
 *   shape FROM TO DELAY JITTER LOSS TWICE OVERTAKE
 *                    delay frames by DELAY to DELAY + JITTER milliseconds; of 1000 frames, lose LOSS, send
 *                    TWICE two times, and let OVERTAKE leave without waiting for the frames before them
 *   stats            print how many frames were sent, cut, lost, sent twice, let overtake, and dropped
 *                    because the queue was full
 *
 * FROM and TO are ports, or `*' for all. Each command is answered by one line: what it asked for, `ok', or
 * `error: ...'. A command holds for the frames that arrive after its answer. The switch ends when its input
 * does.
 *
 * One thread. A frame that has to wait is in one heap, in the order of the times when they are due. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 16, MTU = 9000, FRAME = MTU + 64, WAITING = 16384, BURST = 64 };

struct link {
  bool cut;
  unsigned delay, jitter;         /* ms */
  unsigned loss, twice, overtake; /* of 1000 */
  uint64_t last_due;
};

struct frame {
  uint64_t due, number; /* frames that are due at the same time keep their order */
  int to;
  size_t size;
  unsigned char bytes[];
};

struct ethernet_switch {
  int ports;
  int tap[PORTS];
  struct link link[PORTS][PORTS];
  struct frame *heap[WAITING];
  int waiting;
  uint64_t number, random;
  unsigned long sent, cut, lost, twice, overtaken, full;
};

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* xorshift64* */
static unsigned chance(struct ethernet_switch *s, unsigned below) {
  s->random ^= s->random >> 12;
  s->random ^= s->random << 25;
  s->random ^= s->random >> 27;
  return below ? (unsigned)((s->random * 0x2545F4914F6CDD1DU >> 33) % below) : 0;
}

/* --- frames that wait --- */

static bool earlier(const struct frame *a, const struct frame *b) {
  return a->due < b->due || (a->due == b->due && a->number < b->number);
}

static void push(struct ethernet_switch *s, struct frame *f) {
  int i = s->waiting++;
  for (; i > 0 && earlier(f, s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
  s->heap[i] = f;
}

static struct frame *pop(struct ethernet_switch *s) {
  struct frame *first = s->heap[0], *last = s->heap[--s->waiting];
  int i = 0;
  for (int child = 1; child < s->waiting; child = 2 * i + 1) {
    if (child + 1 < s->waiting && earlier(s->heap[child + 1], s->heap[child])) child++;
    if (!earlier(s->heap[child], last)) break;
    s->heap[i] = s->heap[child];
    i = child;
  }
  if (s->waiting > 0) s->heap[i] = last;
  return first;
}

/* --- the way of a frame --- */

static void put_out(struct ethernet_switch *s, int to, const void *bytes, size_t size) {
  if (write(s->tap[to], bytes, size) < 0)
    s->full++;
  else
    s->sent++;
}

static void wait_for(struct ethernet_switch *s, int to, uint64_t due, const void *bytes, size_t size) {
  struct frame *f = s->waiting < WAITING ? malloc(sizeof *f + size) : NULL;
  if (!f) {
    s->full++;
    return;
  }
  *f = (struct frame){.due = due, .number = s->number++, .to = to, .size = size};
  memcpy(f->bytes, bytes, size);
  push(s, f);
}

/* The time when a frame leaves: not before the frames that entered its link earlier, unless it may overtake.
 */
static uint64_t due(struct ethernet_switch *s, struct link *l) {
  const uint64_t at = now_us() + 1000 * (uint64_t)l->delay + chance(s, 1000 * l->jitter + 1);
  if (l->overtake > chance(s, 1000)) {
    s->overtaken++;
    return at;
  }
  if (at > l->last_due) l->last_due = at;
  return l->last_due;
}

static void pass(struct ethernet_switch *s, int from, int to, const void *bytes, size_t size) {
  struct link *l = &s->link[from][to];
  if (l->cut) {
    s->cut++;
    return;
  }
  if (l->loss > chance(s, 1000)) {
    s->lost++;
    return;
  }
  const bool again = l->twice > chance(s, 1000);
  s->twice += again;
  for (int i = 0; i <= again; i++) {
    const uint64_t at = due(s, l);
    if (l->delay || l->jitter || at > now_us())
      wait_for(s, to, at, bytes, size);
    else
      put_out(s, to, bytes, size);
  }
}

static void forward(struct ethernet_switch *s, int from, const unsigned char *bytes, size_t size) {
  if (size < 14) return;
  for (int to = 0; to < s->ports; to++)
    if (to != from && (bytes[0] & 1 || bytes[5] == to + 1)) pass(s, from, to, bytes, size);
}

static void take_in(struct ethernet_switch *s, int port) {
  unsigned char bytes[FRAME];
  for (int i = 0; i < BURST; i++) {
    const ssize_t n = read(s->tap[port], bytes, sizeof bytes);
    if (n <= 0) return;
    forward(s, port, bytes, (size_t)n);
  }
}

static void let_out(struct ethernet_switch *s) {
  while (s->waiting > 0 && s->heap[0]->due <= now_us()) {
    struct frame *f = pop(s);
    put_out(s, f->to, f->bytes, f->size);
    free(f);
  }
}

/* --- commands --- */

static void do_cut(struct link *l, const unsigned *arg) {
  (void)arg;
  l->cut = true;
}

static void do_heal(struct link *l, const unsigned *arg) {
  (void)arg;
  *l = (struct link){.last_due = l->last_due};
}

static void do_shape(struct link *l, const unsigned *arg) {
  *l = (struct link){.delay = arg[0],
                     .jitter = arg[1],
                     .loss = arg[2],
                     .twice = arg[3],
                     .overtake = arg[4],
                     .cut = l->cut,
                     .last_due = l->last_due};
}

static const struct command {
  const char *name;
  int numbers;
  void (*run)(struct link *l, const unsigned *arg);
} COMMANDS[] = {
    {"cut", 0, do_cut},
    {"heal", 0, do_heal},
    {"shape", 5, do_shape},
};

/* Reads a port into first and last, which are 0 to ports - 1; `*' is all of them. */
static bool read_ports(const struct ethernet_switch *s, const char *word, int *first, int *last) {
  if (!word) return false;
  if (!strcmp(word, "*")) {
    *first = 0;
    *last = s->ports - 1;
    return true;
  }
  char *end;
  const long port = strtol(word, &end, 10);
  if (*end || port < 1 || port > s->ports) return false;
  *first = *last = (int)port - 1;
  return true;
}

static const char *run_command(struct ethernet_switch *s, const struct command *c) {
  int from, from_last, to_first, to_last;
  unsigned arg[5] = {0};
  if (!read_ports(s, strtok(NULL, " "), &from, &from_last) ||
      !read_ports(s, strtok(NULL, " "), &to_first, &to_last))
    return "error: no such port";
  for (int i = 0; i < c->numbers; i++) {
    const char *word = strtok(NULL, " ");
    char *end;
    const unsigned long n = word ? strtoul(word, &end, 10) : 0;
    if (!word || *end || end == word || n > 60000) return "error: a number of 0 to 60000 is missing";
    arg[i] = (unsigned)n;
  }
  for (; from <= from_last; from++)
    for (int to = to_first; to <= to_last; to++) c->run(&s->link[from][to], arg);
  return "ok";
}

static void obey(struct ethernet_switch *s, char *line) {
  const char *word = strtok(line, " ");
  if (word && !strcmp(word, "stats")) {
    printf("sent %lu cut %lu lost %lu twice %lu overtaken %lu full %lu\n", s->sent, s->cut, s->lost, s->twice,
           s->overtaken, s->full);
    return;
  }
  const char *answer = "error: no such command";
  for (size_t i = 0; word && i < sizeof COMMANDS / sizeof *COMMANDS; i++)
    if (!strcmp(word, COMMANDS[i].name)) answer = run_command(s, &COMMANDS[i]);
  puts(answer);
}

/* Carries out the complete lines that have arrived; false at the end of the input. A line that does not fit
 * into the buffer counts as the end. */
static bool listen_to(struct ethernet_switch *s, char *text, size_t space, size_t *used) {
  const ssize_t n = read(STDIN_FILENO, text + *used, space - 1 - *used);
  if (n <= 0) return n < 0 && errno == EINTR;
  *used += (size_t)n;
  text[*used] = 0;
  char *start = text;
  for (char *end; (end = strchr(start, '\n')); start = end + 1) {
    *end = 0;
    obey(s, start);
  }
  *used -= (size_t)(start - text);
  memmove(text, start, *used + 1);
  return *used < space - 1;
}

/* --- life --- */

/* A tap device in the network namespace that the calling thread is in; -1 and errno. */
static int make_tap(int port) {
  const int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), any = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq r = {.ifr_name = "eth0", .ifr_flags = IFF_TAP | IFF_NO_PI};
  struct ifreq address = {.ifr_name = "eth0"}, mtu = {.ifr_name = "eth0", .ifr_mtu = MTU};
  address.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  address.ifr_hwaddr.sa_data[0] = 2;
  address.ifr_hwaddr.sa_data[5] = (char)(port + 1);
  const bool made = tap >= 0 && any >= 0 && ioctl(tap, TUNSETIFF, &r) == 0 &&
                    ioctl(any, SIOCSIFHWADDR, &address) == 0 && ioctl(any, SIOCSIFMTU, &mtu) == 0;
  const int problem = errno;
  if (any >= 0) close(any);
  if (!made && tap >= 0) close(tap);
  errno = problem;
  return made ? tap : -1;
}

static bool plug_in(struct ethernet_switch *s, const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", name);
  const int space = open(path, O_RDONLY | O_CLOEXEC);
  const bool entered = space >= 0 && setns(space, CLONE_NEWNET) == 0;
  const int tap = entered ? make_tap(s->ports) : -1;
  if (tap < 0)
    perror(path);
  else
    s->tap[s->ports++] = tap;
  if (space >= 0) close(space);
  return tap >= 0;
}

/* Milliseconds until the first frame is due, rounded up; -1 when none waits. */
static int patience(const struct ethernet_switch *s) {
  if (!s->waiting) return -1;
  const uint64_t now = now_us(), first = s->heap[0]->due;
  return first <= now ? 0 : (int)((first - now + 999) / 1000);
}

static void run(struct ethernet_switch *s) {
  char text[4096];
  size_t used = 0;
  for (;;) {
    struct pollfd fds[PORTS + 1];
    for (int i = 0; i < s->ports; i++) fds[i] = (struct pollfd){.fd = s->tap[i], .events = POLLIN};
    fds[s->ports] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(fds, (nfds_t)s->ports + 1, patience(s)) < 0 && errno != EINTR) return;
    if (fds[s->ports].revents && !listen_to(s, text, sizeof text, &used)) return;
    for (int i = 0; i < s->ports; i++)
      if (fds[i].revents) take_in(s, i);
    let_out(s);
  }
}

int main(int argc, char **argv) {
  static struct ethernet_switch s;
  if (argc < 3 || argc > PORTS + 2) {
    fputs("usage: switch SEED NAMESPACE...\n", stderr);
    return 2;
  }
  s.random = strtoull(argv[1], NULL, 10) * 2 + 1;
  for (int i = 2; i < argc; i++)
    if (!plug_in(&s, argv[i])) return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  run(&s);
  while (s.waiting > 0) free(pop(&s));
  return 0;
}
