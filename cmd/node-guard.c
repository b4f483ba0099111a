/* node-guard [--OPTION VALUE…] -- COMMAND [ARG…]: runs one command for the agent, and ends every process that
 * the command leaves behind.
 *
 * The agent starts this helper (from libexec) for each command, and treats it as the command.  The guard
 * starts the command in a session of its own with the default signal dispositions, passes every signal that
 * it gets on to the command's process group, and ends as the command ended: with the same exit status, or by
 * the same signal.  The options say as whom and how the command runs; the table `options` lists them.
 *
 * The guard itself acts on two events.  GUARD_KILL (SIGRTMIN) makes it send SIGKILL to every descendant at
 * once.  When the command or the agent has ended, every process that is left gets SIGTERM, and SIGKILL after
 * GRACE_MS: a node leaves no processes behind, however it ends. When the guard itself is killed, the agent
 * does this (lib/agent/process/orphans.h).
 *
 * With --tty, the guard is the leader of the session of the command's terminal, and the parent of the command
 * in it, so Ctrl-Z stops the command (its process group is not orphaned).  The guard reports the stop, and
 * stays: it gives the terminal to the command again when CONT is passed on.  The guard has the terminal open
 * until it has reported the end.
 *
 * With --keep, processes that the command leaves behind live on: the guard reports the end of the command,
 * and waits for them until the agent ends, so that they do not become children of the agent.  GUARD_KILL and
 * the end of the agent then end the command's process group only.
 *
 * Descriptor 3, when it is open, is a pipe to the agent for the reports of core/guard.h.  So every exit
 * status is free for the command.
 *
 * Invariant: the guard is the subreaper of its descendants, so each of them is its child, or becomes its
 * child when its parents have ended.  A child that was not yet waited for keeps its pid, so a signal to one
 * of `children` never reaches a process that is not a descendant.
 *
 * Orderings: the guard sleeps until the child has executed the command or has failed, so a report
 * of the failure comes before GUARD_STARTED, which the agent then skips.  A command may close its terminal
 * and go on (programs do so as they exit).  The agent closes its side, which hangs the session up, when
 * nobody has the terminal open; the guard closes it after the report of the end, so the hang-up finds no
 * command. */
#include "core/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 2000, TICK_MS = 50, CANNOT = 125, NOT_FOUND = 127, GROUPS_MAX = 65536 };

/* As whom and how the command runs; the values of the options. */
struct settings {
  bool has_files, has_user, has_nice, has_umask, keep, tty;
  rlim_t files;
  uid_t uid;
  gid_t gid;
  gid_t *groups; /* group_count of them; the first is gid */
  size_t group_count;
  int nice;
  mode_t umask;
  const char *cwd;
  const char *cgroup; /* the directory of the cgroup in which the command begins, or NULL */
};

struct guard {
  const struct settings *settings;
  pid_t agent;     /* our parent, as long as it lives */
  pid_t command;   /* 0 when it was waited for */
  pid_t group;     /* the process group of the command */
  int status;      /* of the command, as wait(2) gives it */
  int left;        /* how many processes ended after the command */
  bool asked;      /* the group was sent a signal that ends processes, which do not count as left behind */
  bool alone;      /* no descendant is left */
  bool stopped;    /* the command itself is stopped, as the last report says */
  int64_t kill_at; /* when SIGKILL follows SIGTERM, in ms; 0: SIGTERM was not sent yet */
};

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Sends a report to the agent.  The write fails when the agent is gone, which does not matter. */
static void report_text(enum guard_kind kind, enum guard_stage stage, int64_t number, const char *text) {
  struct guard_report r = {.kind = kind, .stage = stage, .number = number};
  snprintf(r.text, sizeof r.text, "%s", text);
  ssize_t n = write(GUARD_REPORT, &r, sizeof r);
  (void)n;
}

static void report(enum guard_kind kind, enum guard_stage stage, int64_t number) {
  report_text(kind, stage, number, "");
}

/* Reports what the processes that were waited for have used. */
static void report_usage(void) {
  struct rusage used;
  if (getrusage(RUSAGE_CHILDREN, &used)) return;
  int64_t us = (int64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000;
  report(GUARD_CPU, 0, us + used.ru_utime.tv_usec + used.ru_stime.tv_usec);
  report(GUARD_RSS, 0, (int64_t)used.ru_maxrss * 1024);
}

/* Sets every signal to its default action: sigwaitinfo never returns an ignored signal, and the command is to
 * start as from a login shell.  This includes the two signals that the C library reserves, which its
 * posix_spawn leaves ignored; hence the system call, to which a structure of zeros means the default action.
 */
static void default_signals(void) {
  static const uint64_t none[8];
  for (int s = 1; s < NSIG; s++) syscall(SYS_rt_sigaction, s, none, NULL, sizeof none[0]);
}

/* In the new process: gives up. */
__attribute__((noreturn)) static void fail(enum guard_stage stage) {
  report(GUARD_FAILED, stage, errno);
  _exit(stage == GUARD_EXEC ? NOT_FOUND : CANNOT);
}

/* Stores the path of a command in out[size], as execvp looks for it: the first file of this name in PATH.
 * False: there is none. */
static bool find_file(const char *name, char *out, size_t size, struct stat *found) {
  const char *path = strchr(name, '/') ? "" : getenv("PATH");
  for (const char *at = path ? path : "/bin:/usr/bin", *end; at; at = *end ? end + 1 : NULL) {
    end = strchrnul(at, ':');
    int n = snprintf(out, size, "%.*s%s%s", (int)(end - at), at, end > at ? "/" : "", name);
    if (n > 0 && (size_t)n < size && stat(out, found) == 0) return true;
  }
  return false;
}

/* Reads the interpreter from the first line of a script, as the kernel does: with a carriage return, when it
 * ends in one.  False: the file is no script, or cannot be read. */
static bool read_interpreter(const char *path, char out[256]) {
  char line[256] = "";
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  if (fd >= 0) close(fd);
  if (n < 2 || line[0] != '#' || line[1] != '!') return false;
  const char *begin = line + 2 + strspn(line + 2, " \t");
  snprintf(out, 256, "%.*s", (int)strcspn(begin, " \t\n"), begin);
  return *out;
}

/* In the new process: execvp has failed.  Its error does not tell a file that is missing from an interpreter
 * that is missing, nor a file that may not be executed from a directory of PATH that may not be searched. */
__attribute__((noreturn)) static void fail_exec(const char *name) {
  char path[4096], interpreter[256];
  struct stat found;
  int error = errno;
  bool there = *name && find_file(name, path, sizeof path, &found);
  if (there && S_ISDIR(found.st_mode)) error = EISDIR;
  bool may = there && S_ISREG(found.st_mode) && access(path, X_OK) == 0;
  if (may && (error == ENOENT || error == EACCES)) {
    report_text(GUARD_FAILED, GUARD_INTERPRETER, error,
                read_interpreter(path, interpreter) ? interpreter : "");
    _exit(CANNOT);
  }
  errno = error == EACCES && !there && !strchr(name, '/') ? ENOENT : error;
  fail(GUARD_EXEC);
}

/* Gives the pipes, or the terminal, on the descriptors 0 to 2 to the user, who could not open /dev/stdout
 * again otherwise. */
static bool give_pipes(const struct settings *s) {
  struct stat st;
  for (int fd = 0; fd < GUARD_REPORT; fd++)
    if (!fstat(fd, &st) && (s->tty || S_ISFIFO(st.st_mode)) &&
        fchown(fd, s->uid, s->tty ? (gid_t)-1 : s->gid))
      return false;
  return true;
}

/* In the new process: sets what the options say.  The priority comes first, because only root may raise it;
 * the directory comes last, because the user may be allowed to enter it where root is not, and vice versa. */
static void prepare(const struct settings *s) {
  if (s->has_nice && setpriority(PRIO_PROCESS, 0, s->nice)) fail(GUARD_NICE);
  if (s->has_umask) umask(s->umask);
  if (s->has_user && (!give_pipes(s) || setgroups(s->group_count, s->groups) ||
                      setresgid(s->gid, s->gid, s->gid) || setresuid(s->uid, s->uid, s->uid)))
    fail(GUARD_IDENTITY);
  if (s->cwd && chdir(s->cwd)) fail(GUARD_CWD);
}

/* In the new process: executes the command, or exits. */
__attribute__((noreturn)) static void become(const struct settings *s, char **argv, pid_t guard) {
  sigset_t none;
  sigemptyset(&none);
  if (!s->tty)
    setsid();
  else if (setpgid(0, 0) || tcsetpgrp(STDIN_FILENO, getpid()))
    fail(GUARD_TTY);
  prepare(s);
  /* Ends the command when the guard gets SIGKILL, the one signal that the guard cannot pass on.  The kernel
   * forgets this when the user changes. */
  if (!s->keep) prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != guard) _exit(CANNOT);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execvp(argv[0], argv);
  fail_exec(argv[0]);
}

/* Did the agent end before PR_SET_PDEATHSIG was set? Then the pipe has no reader: POLLERR, or POLLHUP where
 * it is a pair of sockets. The parent alone does not tell: it may have changed before `agent` was read. */
static bool agent_is_gone(const struct guard *g) {
  struct pollfd p = {.fd = GUARD_REPORT};
  return getppid() != g->agent || (poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)));
}

/* In the new process: enters the cgroup, or reports the errno and exits. */
static void enter_cgroup(int directory) {
  int procs = openat(directory, "cgroup.procs", O_WRONLY | O_CLOEXEC);
  if (procs >= 0 && write(procs, "0", 1) == 1) {
    close(procs);
    return;
  }
  report(GUARD_FAILED, GUARD_CGROUP, errno);
  _exit(CANNOT);
}

/* Which stage has fork_and_wait failed in? */
static enum guard_stage failed_stage(const struct settings *s, int error) {
  return s->cgroup && error != EAGAIN && error != ENOMEM ? GUARD_CGROUP : GUARD_FORK;
}

/* fork, but returns here when the new process has executed its program or has ended: CLONE_VFORK without
 * shared memory. */
static pid_t fork_and_wait(const struct settings *s) {
  struct clone_args args = {.flags = CLONE_VFORK | CLONE_INTO_CGROUP, .exit_signal = SIGCHLD};
  if (!s->cgroup) return (pid_t)syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL);
  int directory = open(s->cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -1;
  args.cgroup = (uint64_t)directory;
  pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0 && (errno == ENOSYS || errno == EPERM)) { /* a seccomp filter of a container refuses clone3 */
    pid = (pid_t)syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) enter_cgroup(directory);
  }
  if (pid) close(directory);
  return pid;
}

/* Makes the guard the leader of the session that has the terminal; the command is its foreground process
 * group. The kernel discards output that waits in a terminal when the leader of its session ends, so the
 * guard ends after the agent has read everything (wait_for_hangup). */
static bool lead_session(void) {
  if (setsid() >= 0 && ioctl(STDIN_FILENO, TIOCSCTTY, 0) == 0) return true;
  report(GUARD_FAILED, GUARD_TTY, errno);
  return false;
}

/* Waits until the agent has read the last output and has closed its side of the terminal, which sends HUP to
 * the leader of the session, or until the agent asks for the end. */
static void wait_for_hangup(const struct guard *g) {
  sigset_t all;
  sigfillset(&all);
  close(STDIN_FILENO);
  while (getppid() == g->agent && sigwaitinfo(&all, NULL) == SIGCHLD) continue;
}

/* Reports that the command was stopped, or goes on.  A child that a shell with job control stops is not ours,
 * so it is not reported. */
static void note_stops(struct guard *g) {
  for (siginfo_t info = {0}; g->command; info = (siginfo_t){0}) {
    if (waitid(P_PID, (id_t)g->command, &info, WSTOPPED | WCONTINUED | WNOHANG) || !info.si_pid) return;
    g->stopped = info.si_code == CLD_STOPPED;
    report(g->stopped ? GUARD_STOPPED : GUARD_CONTINUED, 0, g->stopped ? info.si_status : 0);
  }
}

static bool start(struct guard *g, char **argv) {
  g->agent = getppid();
  fcntl(GUARD_REPORT, F_SETFD, FD_CLOEXEC);
  close_range(GUARD_REPORT + 1, ~0U, 0); /* descriptors that libraries of the agent have left open */
  /* Ctrl-C of the terminal of the agent goes to the agent only, which ends its commands itself. */
  if (!g->settings->tty) setpgid(0, 0);
  if (g->settings->tty && !lead_session()) return false;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (agent_is_gone(g)) return false;
  const pid_t self = getpid();
  g->group = g->command = fork_and_wait(g->settings);
  if (g->command == 0) become(g->settings, argv, self);
  if (g->command < 0)
    report(GUARD_FAILED, failed_stage(g->settings, errno), errno);
  else
    report(GUARD_STARTED, 0, g->command);
  /* Only the command keeps the pipes open, so their readers see the end when the command closes them. */
  for (int fd = g->settings->tty ? STDOUT_FILENO : STDIN_FILENO; fd < GUARD_REPORT; fd++) close(fd);
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

/* Waits for one child that has ended; false: there is none. */
static bool reap_one(struct guard *g, bool after) {
  siginfo_t info = {0};
  int status;
  g->alone = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0;
  if (!info.si_pid) return false;
  bool was_asked = g->asked && getpgid(info.si_pid) == g->group;
  waitpid(info.si_pid, &status, 0);
  g->left += after && !was_asked;
  if (info.si_pid != g->command) return true;
  g->command = 0;
  g->status = status;
  return true;
}

/* Waits for every child that has ended; true when there was one. */
static bool reap(struct guard *g) {
  bool any = false, after = !g->command;
  while (reap_one(g, after)) any = true;
  note_stops(g);
  return any;
}

/* Passes a signal on to the command; TERM also continues a command that is stopped, so that it can end.  A
 * signal that comes because the agent has ended is not passed on: sweep ends the command. */
static void handle(struct guard *g, int signal, const siginfo_t *info) {
  if (signal == SIGCHLD || signal < 0) return;
  if (signal == GUARD_KILL) {
    g->asked = true;
    g->kill_at = now_ms();
    return;
  }
  if (getppid() != g->agent) return;
  if (signal == GUARD_PASS) signal = info->si_value.sival_int;
  g->asked |=
      signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGQUIT || signal == SIGKILL;
  /* The command becomes the foreground of its terminal, as a shell does before it continues a job. */
  if (signal == SIGCONT && g->stopped && g->settings->tty) tcsetpgrp(STDIN_FILENO, g->group);
  signal_group(g, signal);
  if (signal == SIGTERM) signal_group(g, SIGCONT);
}

/* Ends the processes that are left: SIGTERM at the first call, and to each descendant that becomes a child
 * later; SIGKILL after GRACE_MS. */
static void sweep(struct guard *g, bool ended) {
  bool first = !g->kill_at;
  if (first) g->kill_at = now_ms() + GRACE_MS;
  int signal = now_ms() < g->kill_at ? SIGTERM : SIGKILL;
  if (first || signal == SIGKILL) signal_group(g, signal);
  if (!g->settings->keep && (first || signal == SIGKILL || ended)) signal_orphans(g, signal);
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
    if (g->settings->keep && !g->command) return;
    bool sweeping = !g->command || g->kill_at || getppid() != g->agent;
    if (sweeping) sweep(g, ended);
    siginfo_t info = {0};
    handle(g, sweeping ? sigtimedwait(&all, &info, &tick) : sigwaitinfo(&all, &info), &info);
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

/* Waits until no process is left that the command has left behind, or the agent has ended. */
static void keep(struct guard *g) {
  close(GUARD_REPORT);
  sigset_t all;
  sigfillset(&all);
  while (!g->alone && getppid() == g->agent) {
    sigwaitinfo(&all, NULL);
    reap(g);
  }
}

/* --- options -------------------------------------------------------------------------------------------- */

/* Reads a whole number.  A value that the agent has written is right, so a wrong one is only told by usage.
 */
static bool read_number(const char *text, int base, long long *out) {
  char *end;
  *out = strtoll(text, &end, base);
  return end != text && !*end;
}

static bool set_files(struct settings *s, const char *value) {
  long long n;
  s->has_files = read_number(value, 10, &n) && n > 0;
  s->files = (rlim_t)n;
  return s->has_files;
}

/* UID:GID[,GID…]: the first group is that of the user. */
static bool set_user(struct settings *s, const char *value) {
  char *at;
  s->uid = (uid_t)strtoul(value, &at, 10);
  if (at == value || !(s->groups = calloc(strlen(value), sizeof *s->groups))) return false;
  for (char sign = ':'; *at == sign && s->group_count < GROUPS_MAX; sign = ',')
    s->groups[s->group_count++] = (gid_t)strtoul(at + 1, &at, 10);
  s->has_user = s->group_count && !*at;
  s->gid = s->groups[0];
  return s->has_user;
}

static bool set_nice(struct settings *s, const char *value) {
  long long n;
  s->has_nice = read_number(value, 10, &n);
  s->nice = (int)n;
  return s->has_nice;
}

static bool set_umask(struct settings *s, const char *value) {
  long long n;
  s->has_umask = read_number(value, 8, &n) && n >= 0 && n <= 0777;
  s->umask = (mode_t)n;
  return s->has_umask;
}

static bool set_cwd(struct settings *s, const char *value) {
  s->cwd = value;
  return true;
}

static bool set_cgroup(struct settings *s, const char *value) {
  s->cgroup = value;
  return true;
}

static bool set_keep(struct settings *s, const char *value) {
  s->keep = strcmp(value, "1") == 0;
  return s->keep;
}

static bool set_tty(struct settings *s, const char *value) {
  s->tty = strcmp(value, "1") == 0;
  return s->tty;
}

static const struct {
  const char *name;
  bool (*set)(struct settings *s, const char *value);
} options[] = {
    {"--files", set_files},   /* N: the soft limit of descriptors, since the agent has raised its own */
    {"--user", set_user},     /* UID:GID[,GID…]: becomes this user, with these groups */
    {"--nice", set_nice},     /* N: the priority, from -20 to 19 */
    {"--umask", set_umask},   /* OCTAL */
    {"--cwd", set_cwd},       /* DIR: the directory, entered as the user */
    {"--cgroup", set_cgroup}, /* DIR: the cgroup in which the command begins */
    {"--tty", set_tty},       /* 1: descriptor 0 is the terminal of the command, and its controlling one */
    {"--keep", set_keep},     /* 1: processes that the command leaves behind live on */
};

static bool set_option(struct settings *s, const char *name, const char *value) {
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    if (strcmp(options[i].name, name) == 0) return options[i].set(s, value);
  return false;
}

/* Returns the words of the command, or NULL after a mistake. */
static char **parse(struct settings *s, char **argv) {
  char **at = argv + 1;
  for (; *at && strcmp(*at, "--") != 0; at += 2)
    if (!at[1] || !set_option(s, at[0], at[1])) return NULL;
  return at[0] && at[1] ? at + 1 : NULL;
}

static void limit_files(const struct settings *s) {
  struct rlimit files;
  if (!s->has_files || getrlimit(RLIMIT_NOFILE, &files)) return;
  files.rlim_cur = s->files;
  setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv) {
  struct settings settings = {0};
  char **command = argc > 1 ? parse(&settings, argv) : NULL;
  if (!command) {
    dprintf(STDERR_FILENO, "usage: node-guard [--OPTION VALUE]... -- COMMAND [ARG...]\n");
    return CANNOT;
  }
  limit_files(&settings);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, NULL);
  default_signals();
  struct guard g = {.settings = &settings};
  bool started = start(&g, command);
  free(settings.groups);
  if (!started) return CANNOT;
  wait_for_tree(&g);
  report_usage();
  report(GUARD_LEFT, 0, g.left);
  if (settings.keep || settings.tty) report(GUARD_ENDED, 0, g.status);
  if (settings.keep) keep(&g);
  if (settings.tty) wait_for_hangup(&g);
  return end_as(g.status);
}
