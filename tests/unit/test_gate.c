/* The gate over real sockets on loopback, whose addresses are 127.0.0.2, 127.0.0.3 and so on; the test plays
 * the HTTP server. */
#include "agent/http/gate.h"

#include "base/clock.h"
#include "psk_client.h"
#include "tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CLIENTS = 64 };

static struct psk right, wrong;
static struct psk_set accepted; /* the keys that the gate accepts */
static unsigned char good[CLIENT_HELLO_MAX], bad[CLIENT_HELLO_MAX];
static size_t good_n, bad_n;

/* --- a gate, its clients and its server ----------------------------------------------------------------- */

struct place {
  uv_loop_t loop;
  uv_timer_t patience;
  uv_check_t turns;
  struct refusals refusals;
  struct log log;
  int log_fd[2];
  struct gate *gate;
  struct sockaddr_in at;
  int clients[CLIENTS], count;
  int inside[CLIENTS], entered; /* sockets that the server was given */
  bool full;                    /* the server takes no socket */
  int links;                    /* sockets of links among those that were entered */
  int loops;
  bool over;
};

static bool enter(void *data, int fd, const struct sockaddr *from, socklen_t n, bool link) {
  struct place *p = data;
  (void)from, (void)n;
  p->links += link;
  if (p->full) close(fd);
  if (p->full) return false;
  p->inside[p->entered++] = fd;
  return true;
}

static void on_patience(uv_timer_t *t) {
  ((struct place *)t->data)->over = true;
}
static void on_turn(uv_check_t *c) {
  ((struct place *)c->data)->loops++;
}

static int64_t refused(const struct place *p, enum refusal reason) {
  return p->refusals.counts[reason];
}

/* Runs the loop for some time, or until a count is reached. */
static bool run(struct place *p, unsigned ms, const int64_t *count, int64_t want) {
  p->over = false;
  p->loops = 0;
  uv_update_time(&p->loop);
  uv_timer_start(&p->patience, on_patience, ms, 0);
  while (!p->over && !(count && *count >= want)) uv_run(&p->loop, UV_RUN_ONCE);
  return !p->over;
}

static bool settles(struct place *p, enum refusal reason, int64_t want) {
  return run(p, 10000, &p->refusals.counts[reason], want);
}

/* Runs the loop until there are `guests` guests and `entered` connections have entered; false when that takes
 * too long. */
static bool reaches(struct place *p, int guests, int entered) {
  int64_t end = clock_ns() + INT64_C(10000000000);
  while (clock_ns() < end && (gate_guests(p->gate) != guests || p->entered != entered)) run(p, 5, NULL, 0);
  return gate_guests(p->gate) == guests && p->entered == entered;
}

static void start(struct place *p, const struct psk_set *psks, int guests_max, int proof_ms) {
  *p = (struct place){.at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof p->at;
  struct error e;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (pipe2(p->log_fd, O_CLOEXEC | O_NONBLOCK) || bind(fd, (struct sockaddr *)&p->at, size) ||
      listen(fd, CLIENTS) || getsockname(fd, (struct sockaddr *)&p->at, &size))
    abort();
  struct sink_config log = {.prefix = "test", .max = {1 << 20}, .fd = p->log_fd[1]};
  if (sink_new(&log, &p->log.sink, &e)) abort();
  p->log.prefix = "test";
  p->refusals.log = &p->log;
  uv_loop_init(&p->loop);
  uv_timer_init(&p->loop, &p->patience);
  uv_check_init(&p->loop, &p->turns);
  p->patience.data = p->turns.data = p;
  uv_check_start(&p->turns, on_turn);
  struct gate_config config = {.loop = &p->loop,
                               .psks = psks,
                               .refusals = &p->refusals,
                               .enter = enter,
                               .data = p,
                               .guests_max = guests_max,
                               .proof_ms = proof_ms};
  p->gate = gate_new(&config, fd, &e);
  if (!p->gate) abort();
}

/* Returns the lines that were logged. */
static const char *logged(const struct place *p) {
  static char text[8192];
  sink_flush(p->log.sink, 10000);
  ssize_t n = read(p->log_fd[0], text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  return text;
}

static void stop(struct place *p) {
  for (int i = 0; i < p->entered; i++) {
    struct guest *v = gate_guest(p->gate, p->inside[i]);
    if (v) gate_left(v);
    close(p->inside[i]);
  }
  gate_finish(p->gate);
  uv_close((uv_handle_t *)&p->patience, NULL);
  uv_close((uv_handle_t *)&p->turns, NULL);
  uv_run(&p->loop, UV_RUN_DEFAULT);
  ok(uv_loop_close(&p->loop) == 0, "the gate leaves no handle");
  gate_free(p->gate);
  for (int i = 0; i < p->count; i++) close(p->clients[i]);
  sink_free(p->log.sink, 10000);
  close(p->log_fd[0]), close(p->log_fd[1]);
}

/* Connects a client from 127.0.0.N that sends these bytes. */
static int client(struct place *p, int n, const void *bytes, size_t size) {
  struct sockaddr_in from = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)n - 1)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) ||
      connect(fd, (struct sockaddr *)&p->at, sizeof p->at) ||
      (size && send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size))
    abort();
  return p->clients[p->count++] = fd;
}

/* True when the client receives n bytes and then the end of its connection. */
static bool closed(int fd, ssize_t n) {
  char bytes[64];
  ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n && got != n) return false;
  if (n) got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno == ECONNRESET);
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void test_enter(void) {
  struct place p;
  start(&p, &accepted, 0, 0);
  client(&p, 2, good, good_n);
  ok(reaches(&p, 1, 1), "who proves the cookie enters, and is a guest until the handshake is done");
  struct guest *v = gate_guest(p.gate, p.inside[0]);
  if (ok(v && gate_entered(p.gate) == 1, "the gate finds it by its socket")) gate_proved(v);
  ok(!p.links, "it is no link");
  ok(!gate_guest(p.gate, p.inside[0]) && !gate_guests(p.gate), "then it is no guest any more");
  unsigned char bytes[CLIENT_HELLO_MAX];
  ok(recv(p.inside[0], bytes, sizeof bytes, 0) == (ssize_t)good_n, "the server reads its message");
  int fd = client(&p, 2, good, 100);
  ok(reaches(&p, 1, 1), "half a message: the gate waits");
  ok(send(fd, good + 100, good_n - 100, 0) > 0 && reaches(&p, 1, 2), "the other half: it enters");
  gate_left(gate_guest(p.gate, p.inside[1]));
  ok(refused(&p, REFUSAL_HANDSHAKE) == 1 && !gate_guests(p.gate), "one whose handshake fails is counted");
  p.full = true;
  client(&p, 2, good, good_n);
  ok(settles(&p, REFUSAL_CROWDED, 1) && !gate_guests(p.gate), "a server without room refuses");
  stop(&p);
}

static void test_refused(void) {
  struct place p;
  start(&p, &accepted, 0, 0);
  int fd = client(&p, 2, bad, bad_n);
  ok(settles(&p, REFUSAL_COOKIE, 1) && closed(fd, CLIENT_HELLO_ALERT), "another cookie gets an alert");
  fd = client(&p, 2, "GET / HTTP/1.1\r\n\r\n", 18);
  ok(settles(&p, REFUSAL_ALIEN, 1) && closed(fd, 0), "plain HTTP is closed at once");
  fd = client(&p, 2, "hi", 2);
  shutdown(fd, SHUT_WR);
  ok(settles(&p, REFUSAL_ALIEN, 2) && closed(fd, 0), "two bytes and an end are no message");
  fd = client(&p, 2, good, good_n / 2);
  shutdown(fd, SHUT_WR);
  ok(settles(&p, REFUSAL_ALIEN, 3), "nor is half a message and an end");
  shutdown(client(&p, 2, "", 0), SHUT_WR);
  ok(settles(&p, REFUSAL_HUNG_UP, 1), "who says nothing and hangs up is counted");
  ok(!gate_guests(p.gate) && !p.entered, "none is left, and the server has seen none");
  const char *text = logged(&p);
  ok(strstr(text, "127.0.0.2 is refused: it has another cookie (cookie): both nodes need the same cookie") &&
         strchr(text, '\n')[1] == 0,
     "one address makes one line a minute, which says the remedy: %s", text);
  client(&p, 3, bad, bad_n);
  ok(settles(&p, REFUSAL_COOKIE, 2) && strstr(logged(&p), "127.0.0.3"), "another address makes its own line");
  stop(&p);
}

static void test_crowds(void) {
  struct place p;
  int first[6];
  start(&p, &accepted, 16, 0); /* the bound for an address is then 4 */
  for (int i = 0; i < 6; i++) first[i] = client(&p, 2, "", 0);
  ok(settles(&p, REFUSAL_CROWDED, 2) && gate_guests(p.gate) == 4, "an address has 4 guests of 16 at most");
  ok(closed(first[0], 0) && closed(first[1], 0) && !closed(first[2], 0), "its oldest make room");
  for (int i = 0; i < 12; i++) client(&p, 3 + i % 4, "", 0);
  ok(reaches(&p, 16, 0), "other addresses have their own");
  int alone = client(&p, 100, "", 0);
  ok(settles(&p, REFUSAL_CROWDED, 3) && gate_guests(p.gate) == 16, "one more than the gate takes");
  ok(closed(first[2], 0) && !closed(first[3], 0) && !closed(alone, 0),
     "takes the place of the oldest of the address with the most");
  for (int i = 0; i < 20; i++) client(&p, 2, "", 0);
  run(&p, 50, NULL, 0);
  ok(send(alone, good, good_n, 0) > 0 && reaches(&p, gate_guests(p.gate), 1),
     "who waits beside a flood enters once it proves the cookie");
  stop(&p);
}

static void test_time(void) {
  struct place p;
  start(&p, &accepted, 0, 300);
  int64_t from = clock_ns();
  client(&p, 2, "", 0);
  client(&p, 2, good, good_n / 2);
  client(&p, 2, good, good_n);
  ok(settles(&p, REFUSAL_TIMEOUT, 3) && clock_ns() - from >= 290000000,
     "silence, half a message and a handshake without an end are refused after the time to prove");
  ok(closed(p.clients[0], 0) && closed(p.clients[1], 0), "those outside are closed");
  ok(recv(p.inside[0], good, sizeof good, 0) >= 0 && closed(p.clients[2], 0),
     "the server sees the end of the one inside");
  ok(gate_guests(p.gate) == 0, "and is still to say that it has closed it");
  gate_left(gate_guest(p.gate, p.inside[0]));
  ok(!refused(&p, REFUSAL_HANDSHAKE), "which is counted once");
  stop(&p);
}

/* The loop sleeps while guests wait. */
static void test_idle(void) {
  struct place p;
  start(&p, &accepted, 0, 0);
  for (int i = 0; i < 8; i++) client(&p, 2, good, good_n - 1 - (size_t)i);
  reaches(&p, 8, 0);
  run(&p, 20, NULL, 0);
  run(&p, 200, NULL, 0);
  ok(p.loops < 5 && gate_guests(p.gate) == 8, "8 unfinished messages cost %d turns of the loop", p.loops);
  stop(&p);
}

static void test_descriptors(void) {
  struct place p;
  struct rlimit limit, low;
  getrlimit(RLIMIT_NOFILE, &limit);
  start(&p, &accepted, 0, 0);
  for (int i = 0; i < 4; i++) client(&p, 2 + i, "", 0);
  int beyond = p.clients[3] + 1;
  low = limit;
  low.rlim_cur = (rlim_t)beyond;
  setrlimit(RLIMIT_NOFILE, &low);
  run(&p, 350, NULL, 0);
  ok(p.loops < 20 && !gate_guests(p.gate), "without descriptors the gate sleeps: %d turns", p.loops);
  setrlimit(RLIMIT_NOFILE, &limit);
  ok(reaches(&p, 4, 0), "and accepts when there are some");
  low.rlim_cur = (rlim_t)dup(p.clients[0]);
  close((int)low.rlim_cur);
  setrlimit(RLIMIT_NOFILE, &low);
  setrlimit(RLIMIT_NOFILE, &limit);
  stop(&p);

  low.rlim_cur = 64; /* the gate keeps 16 of the 64 */
  setrlimit(RLIMIT_NOFILE, &low);
  start(&p, &accepted, 0, 0);
  int used[64], n = 0;
  while (n < 64 && (n == 0 || used[n - 1] < 46)) used[n] = dup(0), n++;
  client(&p, 2, "", 0);
  client(&p, 2, "", 0);
  ok(settles(&p, REFUSAL_DESCRIPTORS, 1) && strstr(logged(&p), "ulimit -n"), "some descriptors are kept");
  while (n) close(used[--n]);
  setrlimit(RLIMIT_NOFILE, &limit);
  stop(&p);
}

static void test_socket(void) {
  struct place p;
  start(&p, NULL, 0, 0);
  client(&p, 2, "", 0);
  ok(reaches(&p, 0, 1), "without a key, everybody enters at once");
  gate_pause(p.gate, true);
  client(&p, 2, "", 0);
  run(&p, 30, NULL, 0);
  ok(p.entered == 1, "a paused gate accepts nothing");
  gate_pause(p.gate, false);
  ok(reaches(&p, 0, 2), "and goes on later");
  stop(&p);
}

/* --- the log -------------------------------------------------------------------------------------------- */

static void test_log(void) {
  struct place p;
  const int64_t s = 1000000000, t = 1000 * s;
  start(&p, &accepted, 0, 0);
  for (int i = 0; i < 10; i++) refusals_note(&p.refusals, REFUSAL_COOKIE, 7, "10.0.0.7", t + i * s);
  ok(strstr(logged(&p), "10.0.0.7 is refused: "), "the first is logged");
  refusals_note(&p.refusals, REFUSAL_TIMEOUT, 7, "10.0.0.7", t + 60 * s);
  ok(strstr(logged(&p), "10.0.0.7 is refused (and 9 more since the last line): it has not proved the cookie"),
     "the next a minute later, with how many there were");
  for (int i = 1; i <= 500; i++)
    refusals_note(&p.refusals, REFUSAL_ALIEN, 100 + (uint64_t)i, "10.1.0.0", t + 61 * s);
  const char *text = logged(&p);
  int lines = 0;
  for (const char *at = text; (at = strchr(at, '\n')); at++) lines++;
  ok(lines == REFUSALS_SOURCES, "500 sources make %d lines", lines);
  ok(strstr(text, "from more than 32 addresses"), "the last says that there are more");
  ok(refused(&p, REFUSAL_ALIEN) == 500, "each is counted");
  stop(&p);
}

int main(void) {
  struct cookie one = {.bytes = "a-secret-of-two-nodes", .len = 21},
                two = {.bytes = "another-secret-here", .len = 19};
  curl_global_init(CURL_GLOBAL_DEFAULT);
  if (psk_derive(&one, &right) || psk_derive(&two, &wrong)) return 1;
  accepted = (struct psk_set){.all = {right}, .count = 1};
  good_n = psk_client_hello(&(struct psk_client){.psk = &right}, CLIENT_HELLO_ALIEN, good);
  bad_n = psk_client_hello(&(struct psk_client){.psk = &wrong}, CLIENT_HELLO_ALIEN, bad);
  test_enter();
  test_refused();
  test_crowds();
  test_idle();
  test_descriptors();
  test_socket();
  test_log();
  test_time(); /* the last: it changes `good` */
  curl_global_cleanup();
  return tap_end();
}
