/* node-guard [FILES] -- COMMAND [ARG…]: runs one command for the agent and answers for its whole tree of
 * processes.
 *
 * Not a tool for people: the agent starts it (from libexec) wherever it would start a command, and then
 * treats it as the command.  It begins the command in a session of its own, with signals as a login shell
 * gives them, hands every signal it gets on to the command's group, and ends as the command ended: same exit
 * status, or dead of the same signal.  FILES is the soft limit of descriptors that the command gets: the
 * agent has raised its own.
 *
 * Two things are its own.  SIGRTMIN means "the whole tree, now": SIGKILL to every descendant.  And once the
 * command has ended, or the agent has, whatever is left of the tree gets TERM, and KILL after GRACE_MS: a
 * node leaves no orphans, however it dies.
 *
 * Descriptor 3, when it is open, is a pipe to the agent: it closes without a byte once the command runs, or
 * carries the errno (one int) that says why it could not.  That way no exit status is taken from the command.
 *
 * Invariant: the guard is the subreaper of all it started, so every descendant is its child, or will be as
 * soon as what stands between has ended.  A child that was not waited for keeps its pid, so no signal sent to
 * one of `children` can hit a stranger. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REPORT = 3, GRACE_MS = 2000, TICK_MS = 50, CANNOT = 125, NOT_FOUND = 127 };

struct guard {
  pid_t agent;     /* our parent, as long as it lives */
  pid_t command;   /* 0 once it was waited for */
  int status;      /* of the command, as wait(2) gives it */
  bool alone;      /* nothing of the tree is left */
  int64_t kill_at; /* when patience ends, in ms; 0: nothing has to go yet */
};

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Tells the agent why nothing runs.  It may be gone: then nobody is left to tell. */
static void report(int error) {
  ssize_t n = write(REPORT, &error, sizeof error);
  (void)n;
}

/* An ignored signal would never be waited for, and the command is to start as from a login shell.  The two
 * signals that the C library keeps for itself are included, since its posix_spawn leaves them ignored; so the
 * kernel is asked, for whom a structure of zeros is the default action. */
static void default_signals(void) {
  static const uint64_t none[8];
  for (int s = 1; s < NSIG; s++) syscall(SYS_rt_sigaction, s, none, NULL, sizeof none[0]);
}

/* In the new process: becomes the command, or ends. */
static void become(char **argv, pid_t guard) {
  sigset_t none;
  sigemptyset(&none);
  setsid();
  /* Against a KILL of the guard itself, the only signal it cannot hand on. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != guard) _exit(CANNOT);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execvp(argv[0], argv);
  report(errno);
  _exit(NOT_FOUND);
}

/* Has the agent gone before PR_SET_PDEATHSIG could see it?  Then nobody reads the report pipe any more. */
static bool agent_is_gone(const struct guard *g) {
  struct pollfd p = {.fd = REPORT};
  return getppid() != g->agent || (poll(&p, 1, 0) == 1 && (p.revents & POLLERR));
}

static bool start(struct guard *g, char **argv) {
  g->agent = getppid();
  fcntl(REPORT, F_SETFD, FD_CLOEXEC);
  close_range(REPORT + 1, ~0U, 0); /* what libraries of the agent have left open is not the command's */
  setpgid(0, 0); /* the terminal's Ctrl-C is for the agent, which then decides about its commands */
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (agent_is_gone(g)) return false;
  pid_t self = getpid();
  g->command = fork();
  if (g->command == 0) become(argv, self);
  if (g->command < 0) report(errno);
  /* The pipes are the command's now: their ends must be seen when it closes them, not when we end. */
  for (int fd = 0; fd <= REPORT; fd++) close(fd);
  return g->command > 0;
}

/* Sends a signal to every child that was orphaned below the command. */
static void signal_orphans(const struct guard *g, int signal) {
  FILE *children = fopen("/proc/thread-self/children", "re");
  for (int pid; children && fscanf(children, "%d", &pid) == 1;)
    if (pid != g->command) kill(pid, signal);
  if (children) fclose(children);
}

/* And one to the command's group.  Only while its leader has not been waited for: afterwards the number may
 * be someone else's. */
static void signal_group(const struct guard *g, int signal) {
  if (g->command) kill(-g->command, signal);
}

/* Waits for all that has ended; true when anything had. */
static bool reap(struct guard *g) {
  bool any = false;
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    any = true;
    if (pid != g->command) continue;
    g->command = 0;
    g->status = status;
  }
  g->alone = pid < 0;
  return any;
}

/* A signal came: hands it on, unless it says that the agent is gone, which is sweep's business. */
static void handle(struct guard *g, int signal) {
  if (signal == SIGCHLD || signal < 0) return;
  if (signal == SIGRTMIN)
    g->kill_at = now_ms();
  else if (getppid() == g->agent)
    signal_group(g, signal);
}

/* What has to go gets TERM when its time comes, or as it becomes ours; KILL when patience ended. */
static void sweep(struct guard *g, bool ended) {
  bool first = !g->kill_at;
  if (first) g->kill_at = now_ms() + GRACE_MS;
  int signal = now_ms() < g->kill_at ? SIGTERM : SIGKILL;
  if (first || signal == SIGKILL) signal_group(g, signal);
  if (first || signal == SIGKILL || ended) signal_orphans(g, signal);
}

/* Waits until the command and everything below it have ended; gives up on what even KILL does not end. */
static void watch(struct guard *g) {
  static const struct timespec tick = {.tv_nsec = TICK_MS * 1000000};
  sigset_t all;
  sigfillset(&all);
  for (;;) {
    bool ended = reap(g);
    if (g->alone || (g->kill_at && now_ms() > g->kill_at + GRACE_MS)) return;
    bool sweeping = !g->command || g->kill_at || getppid() != g->agent;
    if (sweeping) sweep(g, ended);
    handle(g, sweeping ? sigtimedwait(&all, NULL, &tick) : sigwaitinfo(&all, NULL));
  }
}

/* Ends as the command did, so that whoever waits for the guard learns the truth. */
static int end_as(int status) {
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  struct rlimit no_core = {0, 0};
  sigset_t it;
  setrlimit(RLIMIT_CORE, &no_core);
  prctl(PR_SET_DUMPABLE, 0);
  sigemptyset(&it);
  sigaddset(&it, WTERMSIG(status));
  signal(WTERMSIG(status), SIG_DFL);
  raise(WTERMSIG(status));
  sigprocmask(SIG_UNBLOCK, &it, NULL);
  return 128 + WTERMSIG(status);
}

static void limit_files(const char *number) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  files.rlim_cur = strtoull(number, NULL, 10);
  setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv) {
  int dashes = argc > 2 && strcmp(argv[1], "--") != 0 ? 2 : 1;
  if (argc < dashes + 2 || strcmp(argv[dashes], "--") != 0) {
    dprintf(STDERR_FILENO, "usage: node-guard [FILES] -- COMMAND [ARG...]\n");
    return CANNOT;
  }
  if (dashes == 2) limit_files(argv[1]);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, NULL);
  default_signals();
  struct guard g = {0};
  if (!start(&g, argv + dashes + 1)) return CANNOT;
  watch(&g);
  return end_as(g.status);
}
