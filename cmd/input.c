/* Invariant: the thread blocks in two places only, and input_stop ends both waits: in poll, which also waits
 * for `stop`, and in the transfer, which nodemsg_cancel ends. */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct input {
  const struct tool *tool;
  struct nodemsg *m;
  char *path;
  struct terminal *terminal; /* or NULL */
  pthread_t thread;
  int stop; /* an eventfd */
};

enum { STOPPED = -1000 /* no error has this code */ };

enum { KEYS = 4096 /* bytes of a terminal that are read at once */ };

/* Reads from the terminal; stores what goes to the command in bytes, which may be nothing. */
static ssize_t read_keys(struct terminal *terminal, char *bytes, size_t size) {
  char keys[KEYS];
  ssize_t n = read(STDIN_FILENO, keys, size - 1 < sizeof keys ? size - 1 : sizeof keys);
  if (n <= 0) return n;
  n = (ssize_t)terminal_type(terminal, keys, (size_t)n, bytes);
  if (n == 0) errno = EAGAIN;
  return n ? n : -1;
}

static ssize_t next_bytes(void *data, char *bytes, size_t size) {
  const struct input *in = data;
  for (;;) {
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = in->stop, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return STOPPED;
    if (fds[1].revents) return STOPPED;
    ssize_t n = !fds[0].revents ? -1
                : in->terminal  ? read_keys(in->terminal, bytes, size)
                                : read(STDIN_FILENO, bytes, size);
    if (n >= 0) return n;
    if (!fds[0].revents || errno == EINTR || errno == EAGAIN) continue;
    fprintf(stderr, "%s: standard input: %s\n", in->tool->name, strerror(errno));
    return 0;
  }
}

/* Closes the pipe on standard input, so that its writer gets SIGPIPE. */
static void close_input(void) {
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0) return;
  dup2(null, STDIN_FILENO);
  close(null);
}

/* The thread.  Reports no failure: a node that is lost is reported by the stream of the process, and a
 * command may end, or close its standard input, whenever it likes. */
static void *upload(void *data) {
  struct input *in = data;
  struct error e = {0};
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, NULL);
  int rc = nodemsg_upload(in->m, in->path, next_bytes, in, &e);
  if (rc && !in->terminal) close_input();
  char ignored[KEYS + 1];
  while (in->terminal && next_bytes(in, ignored, sizeof ignored) > 0)
    ; /* the escapes work until the end of the command is known */
  return NULL;
}

static void input_free(struct input *in) {
  nodemsg_close(in->m);
  if (in->stop >= 0) close(in->stop);
  free(in->path);
  free(in);
}

int input_start(const struct tool *tool, struct nodemsg *m, const char *pid, enum input_end end,
                struct terminal *terminal, struct input **out, struct error *e) {
  struct input *in = tool_need(calloc(1, sizeof *in));
  *in = (struct input){.tool = tool, .m = m, .terminal = terminal, .stop = eventfd(0, EFD_CLOEXEC)};
  in->path = tool_path(tool, "/v1/processes/", pid, end == INPUT_LEAVE ? "/stdin?leave=1" : "/stdin");
  int failed = in->stop < 0 ? errno : pthread_create(&in->thread, NULL, upload, in);
  if (failed) {
    input_free(in);
    return error_set(e, ERR_SYSTEM, "standard input: %s", strerror(failed));
  }
  *out = in;
  return 0;
}

void input_stop(struct input *in) {
  if (!in) return;
  eventfd_write(in->stop, 1);
  nodemsg_cancel(in->m);
  pthread_join(in->thread, NULL);
  input_free(in);
}
