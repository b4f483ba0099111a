/* Invariant: the terminal is raw only while `raw.on`; `lock` guards both, and after `raw.over` it is never
 * raw again.  The signals below are blocked in every thread from terminal_start on, so only the signalfd that
 * the thread reads tells of them: no handler runs between saving and restoring the mode.  Only the thread
 * stops the program (suspend), so no other thread takes the SIGTSTP that the program sends to its own group.
 *
 * Orderings: a stop of the command may be told after somebody has continued it: the answer to SIGCONT says
 * how many stops came before, and those do not stop the program again.
 * The size is read after SIGWINCH has come, so the last request has the last size.  After a stop,
 * the mode and the size are set before the command is continued, so it finds both when it draws again. */
#include "terminal.h"

#include "interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

enum {
  PATIENCE = 3, /* seconds that a request may take, since the node may be frozen */
  STATUS_OWN = 125,
  ESCAPE = '~',
  SUSPEND = 'Z' & 0x1f,
};

static const int taken[] = {SIGWINCH, SIGTSTP, SIGCONT, SIGTERM, SIGHUP,
                            SIGINT,   SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM};

static struct {
  pthread_mutex_t lock;
  struct termios before;
  bool on, over;
} raw = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct terminal {
  const struct tool *tool;
  const struct tool_common *common;
  const char *node, *after;
  char pid[NPID_TEXT_SIZE];
  int signals, stop;        /* a signalfd, an eventfd */
  int halt;                 /* an eventfd: tells the thread that ~^Z was typed, or that `stops` has changed */
  _Atomic bool alone;       /* ~^Z was typed */
  _Atomic json_int_t stops; /* the number of the last stop of the command that was told, */
  json_int_t continued;     /* and of the last one before the thread has continued the command */
  pthread_t thread;
  struct winsize told;
  bool at_start, escaped; /* the next byte begins a line; the last one was an escape character there */
};

struct winsize terminal_size(void) {
  struct winsize size;
  if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) || !size.ws_row || !size.ws_col)
    return (struct winsize){.ws_row = 24, .ws_col = 80};
  return size;
}

/* --- the mode ------------------------------------------------------------------------------------------- */

static void restore(bool for_good) {
  pthread_mutex_lock(&raw.lock);
  if (raw.on) tcsetattr(STDIN_FILENO, TCSANOW, &raw.before);
  raw.on = false;
  raw.over |= for_good;
  pthread_mutex_unlock(&raw.lock);
}

void terminal_restore(void) {
  restore(true);
}

/* Sets the mode, at the first call after the old one was kept; raw.lock is held. */
static void set_raw(void) {
  if (raw.over || (!raw.on && tcgetattr(STDIN_FILENO, &raw.before))) return;
  struct termios mode = raw.before;
  cfmakeraw(&mode);
  raw.on = tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0;
}

/* Sets the mode unless the program is in the background. */
static void make_raw(void) {
  pthread_mutex_lock(&raw.lock);
  if (tcgetpgrp(STDIN_FILENO) == getpgrp()) set_raw();
  pthread_mutex_unlock(&raw.lock);
}

static void unblock(int number, bool yes) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  pthread_sigmask(yes ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

/* Stops whom (0: this program with the other processes of its job, as Ctrl-Z does; or this program alone),
 * and returns when this program is continued in the foreground, with the terminal raw again.  In the
 * background, setting the mode stops the job once more (SIGTTOU), so `bg` does not run it.  Where nobody
 * could continue it (an orphaned process group), the kernel does not stop it, and this returns at once. */
static void suspend(pid_t whom) {
  restore(false);
  kill(whom, SIGTSTP);
  unblock(SIGTSTP, true);
  unblock(SIGTSTP, false);
  pthread_mutex_lock(&raw.lock);
  unblock(SIGTTOU, true);
  set_raw();
  unblock(SIGTTOU, false);
  pthread_mutex_unlock(&raw.lock);
}

/* --- the size ------------------------------------------------------------------------------------------- */

/* Makes one request about the command.  A failure has no consequence: a command that has ended needs no
 * terminal, and a node that is lost is reported by the stream of the process. */
static void tell(const struct terminal *t, const char *method, const char *suffix, json_t *body,
                 json_t **answer) {
  struct tool_common common = *t->common;
  struct nodemsg *m = NULL;
  common.timeout = PATIENCE;
  if (tool_try(&common, t->node, &m, NULL)) return;
  char *path = tool_path(t->tool, "/v1/processes/", t->pid, suffix);
  int rc = nodemsg_request(m, method, path, body, answer, NULL);
  (void)rc;
  free(path);
  nodemsg_close(m);
}

static void tell_size(struct terminal *t) {
  struct winsize size = terminal_size();
  if (size.ws_row == t->told.ws_row && size.ws_col == t->told.ws_col) return;
  t->told = size;
  json_auto_t *body = tool_need(json_pack("{s:i, s:i}", "rows", (int)size.ws_row, "cols", (int)size.ws_col));
  tell(t, "PUT", "/tty", body, NULL);
}

static void tell_continue(struct terminal *t) {
  json_auto_t *body = tool_need(json_pack("{s:s}", "signal", "CONT")), *answer = NULL;
  tell(t, "POST", "/signal", body, &answer);
  t->continued = json_integer_value(json_object_get(answer, "stops"));
}

/* Stops the program; continues the command too, where the command was stopped. */
static void halt(struct terminal *t) {
  eventfd_t ignored;
  if (eventfd_read(t->halt, &ignored)) return;
  bool both = atomic_load(&t->stops) > t->continued;
  if (!atomic_exchange(&t->alone, false) && !both) return;
  suspend(0);
  tell_size(t);
  if (both) tell_continue(t);
}

void terminal_take(struct terminal *t, const json_t *event) {
  if (!json_object_get(event, "stopped")) return;
  atomic_store(&t->stops, json_integer_value(json_object_get(event, "stops")));
  eventfd_write(t->halt, 1);
}

static void act(struct terminal *t, int signal) {
  switch (signal) {
  case SIGTSTP: suspend(getpid()); break;
  case SIGCONT:
    make_raw();
    tell_size(t);
    break;
  case SIGWINCH: tell_size(t); break;
  default: terminal_restore(); interrupt_die(signal);
  }
}

/* The thread. */
static void *run(void *data) {
  struct terminal *t = data;
  struct pollfd fds[] = {{.fd = t->stop, .events = POLLIN},
                         {.fd = t->signals, .events = POLLIN},
                         {.fd = t->halt, .events = POLLIN}};
  struct signalfd_siginfo info;
  tell_size(t);
  for (;;) {
    if (poll(fds, 3, -1) < 0) continue;
    if (fds[0].revents) return NULL;
    if (fds[2].revents) halt(t);
    if (read(t->signals, &info, sizeof info) == sizeof info) act(t, (int)info.ssi_signo);
  }
}

/* --- keys ----------------------------------------------------------------------------------------------- */

static void leave(const struct terminal *t) {
  terminal_restore();
  fprintf(stderr, "%s: <%s>: left; %s\n", t->tool->name, t->pid, t->after);
  _exit(STATUS_OWN);
}

static void show_help(const struct terminal *t) {
  fprintf(stderr,
          "\r\n%s, at the beginning of a line:\r\n"
          "  ~.   leave; %s\r\n"
          "  ~^Z  stop this program, while the command goes on\r\n"
          "  ~~   send ~\r\n"
          "  ~?   this help\r\n",
          t->tool->name, t->after);
}

/* Acts on the character behind an escape; true: it goes nowhere. */
static bool escape(struct terminal *t, char c) {
  switch (c) {
  case '.': leave(t); return true;
  case SUSPEND:
    atomic_store(&t->alone, true);
    eventfd_write(t->halt, 1);
    return true;
  case '?': show_help(t); return true;
  default: return false;
  }
}

size_t terminal_type(struct terminal *t, const char *typed, size_t n, char *out) {
  size_t made = 0;
  for (size_t i = 0; i < n; i++) {
    char c = typed[i];
    bool escaped = t->escaped;
    t->escaped = false;
    if (escaped && escape(t, c)) {
      t->at_start = true;
      continue;
    }
    if (!escaped && t->at_start && c == ESCAPE) {
      t->escaped = true;
      continue;
    }
    if (escaped && c != ESCAPE) out[made++] = ESCAPE;
    out[made++] = c;
    t->at_start = c == '\r' || c == '\n';
  }
  return made;
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void block_signals(sigset_t *set) {
  sigset_t also;
  sigemptyset(set);
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) sigaddset(set, taken[i]);
  also = *set;
  sigaddset(&also, SIGPIPE); /* a write then fails, and the program exits */
  sigaddset(&also, SIGTTOU);
  pthread_sigmask(SIG_BLOCK, &also, NULL);
}

struct terminal *terminal_start(const struct tool *tool, const struct tool_common *common, const char *node,
                                const char *pid, struct winsize told, const char *after) {
  sigset_t set;
  struct terminal *t = tool_need(calloc(1, sizeof *t));
  block_signals(&set);
  *t = (struct terminal){.tool = tool,
                         .common = common,
                         .node = node,
                         .after = after,
                         .told = told,
                         .at_start = true,
                         .signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                         .stop = eventfd(0, EFD_CLOEXEC),
                         .halt = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  snprintf(t->pid, sizeof t->pid, "%s", pid);
  atexit(terminal_restore);
  make_raw();
  bool made = t->signals >= 0 && t->stop >= 0 && t->halt >= 0;
  tool_need(made && !pthread_create(&t->thread, NULL, run, t) ? t : NULL);
  return t;
}

void terminal_stop(struct terminal *t) {
  if (!t) return;
  terminal_restore();
  eventfd_write(t->stop, 1);
  pthread_join(t->thread, NULL);
  close(t->signals);
  close(t->stop);
  close(t->halt);
  free(t);
}
