/* node-guard [FILES] -- COMMAND [ARG…]: runs one command for the agent, and ends every process that the
 * command leaves behind.
 *
 * The agent starts this helper (from libexec) for each command, and treats it as the command.  The guard
 * starts the command in a session of its own with the default signal dispositions, passes every signal that
 * it gets on to the command's process group, and ends as the command ended: with the same exit status, or by
 * the same signal.  FILES is the soft limit of descriptors for the command, since the agent has raised its
 * own.
 *
 * The guard itself acts on two events.  SIGRTMIN makes it send SIGKILL to every descendant at once.  When the
 * command or the agent has ended, every process that is left gets SIGTERM, and SIGKILL after GRACE_MS: a node
 * leaves no processes behind, however it ends. When the guard itself is killed, the agent does this
 * (lib/agent/process/orphans.h).
 *
 * Descriptor 3, when it is open, is a pipe to the agent.  It closes without a byte when the command runs;
 * when the command cannot be run, it carries the errno (one int).  So every exit status is free for the
 * command.
 *
 * Invariant: the guard is the subreaper of its descendants, so each of them is its child, or becomes its
 * child when its parents have ended.  A child that was not yet waited for keeps its pid, so a signal to one
 * of `children` never reaches a process that is not a descendant. */
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
  pid_t command;   /* 0 when it was waited for */
  int status;      /* of the command, as wait(2) gives it */
  bool alone;      /* no descendant is left */
  int64_t kill_at; /* when SIGKILL follows SIGTERM, in ms; 0: SIGTERM was not sent yet */
};

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Sends the errno to the agent.  The write fails when the agent is gone, which does not matter. */
static void report(int error) {
  ssize_t n = write(REPORT, &error, sizeof error);
  (void)n;
}

/* Sets every signal to its default action: sigwaitinfo never returns an ignored signal, and the command is to
 * start as from a login shell.  This includes the two signals that the C library reserves, which its
 * posix_spawn leaves ignored; hence the system call, to which a structure of zeros means the default action.
 */
static void default_signals(void) {
  static const uint64_t none[8];
  for (int s = 1; s < NSIG; s++) syscall(SYS_rt_sigaction, s, none, NULL, sizeof none[0]);
}

/* In the new process: executes the command, or exits. */
static void become(char **argv, pid_t guard) {
  sigset_t none;
  sigemptyset(&none);
  setsid();
  /* Ends the command when the guard gets SIGKILL, the one signal that the guard cannot pass on. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != guard) _exit(CANNOT);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execvp(argv[0], argv);
  report(errno);
  _exit(NOT_FOUND);
}

/* Did the agent end before PR_SET_PDEATHSIG was set? Then the pipe has no reader: POLLERR. libuv makes it a
 * pair of sockets: POLLHUP. The parent alone does not tell: it may have changed before `agent` was read. */
static bool agent_is_gone(const struct guard *g) {
  struct pollfd p = {.fd = REPORT};
  return getppid() != g->agent || (poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)));
}

static bool start(struct guard *g, char **argv) {
  g->agent = getppid();
  fcntl(REPORT, F_SETFD, FD_CLOEXEC);
  close_range(REPORT + 1, ~0U, 0); /* descriptors that libraries of the agent have left open */
  setpgid(0, 0); /* Ctrl-C of the terminal goes to the agent only, which ends its commands itself */
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (agent_is_gone(g)) return false;
  pid_t self = getpid();
  g->command = fork();
  if (g->command == 0) become(argv, self);
  if (g->command < 0) report(errno);
  /* Only the command keeps the pipes open, so their readers see the end when the command closes them. */
  for (int fd = 0; fd <= REPORT; fd++) close(fd);
  return g->command > 0;
}

/* Sends a signal to every child except the command: the descendants whose parents have ended. */
static void signal_orphans(const struct guard *g, int signal) {
  FILE *children = fopen("/proc/thread-self/children", "re");
  for (int pid; children && fscanf(children, "%d", &pid) == 1;)
    if (pid != g->command) kill(pid, signal);
  if (children) fclose(children);
}

/* Sends a signal to the command's group, but not after the command was waited for: then the number may belong
 * to another group. */
static void signal_group(const struct guard *g, int signal) {
  if (g->command) kill(-g->command, signal);
}

/* Waits for every child that has ended; true when there was one. */
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

/* Passes a signal on to the command.  A signal that comes because the agent has ended is not passed on: sweep
 * ends the command. */
static void handle(struct guard *g, int signal) {
  if (signal == SIGCHLD || signal < 0) return;
  if (signal == SIGRTMIN)
    g->kill_at = now_ms();
  else if (getppid() == g->agent)
    signal_group(g, signal);
}

/* Ends the processes that are left: SIGTERM at the first call, and to each descendant that becomes a child
 * later; SIGKILL after GRACE_MS. */
static void sweep(struct guard *g, bool ended) {
  bool first = !g->kill_at;
  if (first) g->kill_at = now_ms() + GRACE_MS;
  int signal = now_ms() < g->kill_at ? SIGTERM : SIGKILL;
  if (first || signal == SIGKILL) signal_group(g, signal);
  if (first || signal == SIGKILL || ended) signal_orphans(g, signal);
}

/* Waits until the command and all descendants have ended; gives up on those that SIGKILL does not end in
 * GRACE_MS. */
static void wait_for_tree(struct guard *g) {
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

/* Ends as the command ended: with its exit status, or by its signal, without a second core dump. */
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
  wait_for_tree(&g);
  return end_as(g.status);
}
