/* Invariant: the thread blocks only where feed_stop reaches it: in poll, or in the transfer, which moves on
 * once the command has ended. */
#include "feed.h"

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

struct feed {
  const struct tool *tool;
  struct nodemsg *m;
  char *path;
  pthread_t thread;
  int stop; /* an eventfd */
};

enum { STOPPED = -1000 /* no error has this code */ };

static ssize_t next_bytes(void *data, char *bytes, size_t size) {
  const struct feed *f = data;
  for (;;) {
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = f->stop, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return STOPPED;
    if (fds[1].revents) return STOPPED;
    ssize_t n = fds[0].revents ? read(STDIN_FILENO, bytes, size) : -1;
    if (n >= 0) return n;
    if (!fds[0].revents || errno == EINTR || errno == EAGAIN) continue;
    fprintf(stderr, "%s: standard input: %s\n", f->tool->name, strerror(errno));
    return 0;
  }
}

/* Whoever writes to us is told, as by any program that does not read any more. */
static void give_up_input(void) {
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0) return;
  dup2(null, STDIN_FILENO);
  close(null);
}

/* What goes wrong on the way needs no word: the process's own stream tells of a node that is lost, and a
 * command that does not read, or has ended, is free to. */
static void *feed(void *data) {
  struct feed *f = data;
  struct error e = {0};
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, NULL);
  if (nodemsg_upload(f->m, f->path, next_bytes, f, &e)) give_up_input();
  return NULL;
}

static void feed_free(struct feed *f) {
  nodemsg_close(f->m);
  if (f->stop >= 0) close(f->stop);
  free(f->path);
  free(f);
}

int feed_start(const struct tool *tool, struct nodemsg *m, const char *pid, struct feed **out,
               struct error *e) {
  struct feed *f = tool_need(calloc(1, sizeof *f));
  *f = (struct feed){.tool = tool, .m = m, .stop = eventfd(0, EFD_CLOEXEC)};
  f->path = tool_path(tool, "/v1/processes/", pid, "/stdin");
  int failed = f->stop < 0 ? errno : pthread_create(&f->thread, NULL, feed, f);
  if (failed) {
    feed_free(f);
    return error_set(e, ERR_SYSTEM, "standard input: %s", strerror(failed));
  }
  *out = f;
  return 0;
}

void feed_stop(struct feed *f) {
  if (!f) return;
  eventfd_write(f->stop, 1);
  pthread_join(f->thread, NULL);
  feed_free(f);
}
