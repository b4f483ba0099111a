/* Invariant: SIGINT is blocked in every thread from interrupt_start on, so only the signalfd that the thread
 * reads tells of it.
 *
 * Orderings: a signal that comes after the command has ended finds no process, which is no failure. */
#include "interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { PATIENCE = 3 /* seconds */ };

struct interrupt {
  const struct tool *tool;
  const struct tool_common *common;
  const char *node;
  int signals, stop; /* a signalfd, an eventfd */
  int count;
  pthread_t thread;
  char pid[NPID_TEXT_SIZE];
};

static void only_int(sigset_t *set) {
  sigemptyset(set);
  sigaddset(set, SIGINT);
}

void interrupt_die(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  signal(number, SIG_DFL);
  raise(number);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Makes one request, in a bounded time, since the node may be frozen, and a further signal waits meanwhile.
 */
static int ask(struct interrupt *in, const char *method, const char *suffix, json_t *body, struct error *e) {
  struct tool_common common = *in->common;
  struct nodemsg *m = NULL;
  common.timeout = PATIENCE;
  int rc = tool_try(&common, in->node, &m, e);
  if (rc) return rc;
  char *path = tool_path(in->tool, "/v1/processes/", in->pid, suffix);
  rc = nodemsg_request(m, method, path, body, NULL, e);
  free(path);
  nodemsg_close(m);
  return rc;
}

static void act(struct interrupt *in) {
  struct error e = {0};
  json_auto_t *number = tool_need(json_pack("{s:s}", "signal", "INT"));
  json_auto_t *reason = tool_need(json_pack("{s:s}", "reason", "shutdown"));
  int count = ++in->count;
  if (count == 1 && isatty(STDERR_FILENO))
    fprintf(stderr, "%s: interrupted; a second Ctrl-C ends the command\n", in->tool->name);
  int rc = count == 1 ? ask(in, "POST", "/signal", number, &e) : ask(in, "DELETE", NULL, reason, &e);
  if (rc && rc != ERR_NO_PROCESS) tool_say(in->tool, rc, &e);
}

/* The thread. */
static void *run(void *data) {
  struct interrupt *in = data;
  struct pollfd fds[] = {{.fd = in->stop, .events = POLLIN}, {.fd = in->signals, .events = POLLIN}};
  struct signalfd_siginfo info;
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, NULL);
  for (;;) {
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[0].revents) return NULL;
    if (read(in->signals, &info, sizeof info) != sizeof info) continue;
    if (in->count >= 2) interrupt_die(SIGINT);
    act(in);
  }
}

static void interrupt_free(struct interrupt *in) {
  if (in->signals >= 0) close(in->signals);
  if (in->stop >= 0) close(in->stop);
  free(in);
}

struct interrupt *interrupt_start(const struct tool *tool, const struct tool_common *common, const char *node,
                                  const char *pid) {
  struct sigaction old;
  sigset_t set, before;
  if (sigaction(SIGINT, NULL, &old) || old.sa_handler == SIG_IGN) return NULL;
  only_int(&set);
  struct interrupt *in = tool_need(calloc(1, sizeof *in));
  *in = (struct interrupt){.tool = tool,
                           .common = common,
                           .node = node,
                           .signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                           .stop = eventfd(0, EFD_CLOEXEC)};
  snprintf(in->pid, sizeof in->pid, "%s", pid);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  if (in->signals >= 0 && in->stop >= 0 && !pthread_create(&in->thread, NULL, run, in)) return in;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  interrupt_free(in);
  return NULL;
}

int interrupt_stop(struct interrupt *in) {
  if (!in) return 0;
  eventfd_write(in->stop, 1);
  pthread_join(in->thread, NULL);
  int count = in->count;
  interrupt_free(in);
  return count;
}
