/* Invariant: a->children maps the pid of each child that was started, and neither waited for nor forgotten.
 * A pid in it is not reused, because only this module waits for these processes.  a->starts has the starts
 * that threads of the pool carry out.
 *
 * Orderings: a child may end before child_start has returned; SIGCHLD is handled in a later turn of the loop,
 * when the child is in the map.  Signals of several ends may be one SIGCHLD.  The SIGCHLD of a child that a
 * thread of the pool starts may be handled before the child is in the map: then it is a stranger, which is
 * not waited for, and on_started, which puts it there, looks at once whether it has ended.  A thread of the
 * pool stores its id before it starts a child, so whoever sees the child below that thread sees the id. */
#include "agent/process/children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Takes the end of a child that can be waited for; false: it runs. */
static bool take(struct agent *a, struct child *c) {
  int status;
  pid_t pid = waitpid(c->pid, &status, WNOHANG);
  if (pid == 0 || (pid < 0 && errno == EINTR)) return false;
  map_remove_id(&a->children, (uint64_t)c->pid);
  c->pid = 0;
  if (pid < 0) status = SIGKILL; /* somebody else has waited for it: how it ended is not known */
  c->ended(c, WIFEXITED(status) ? WEXITSTATUS(status) : 0, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  return true;
}

/* Looks at every child: needed where a process that has ended and is none of these hides the others. */
static void look_at_all(struct agent *a) {
  size_t count = 0;
  uint64_t pid, *pids = malloc(a->children.len * sizeof *pids);
  for (size_t at = 0; pids && map_next(&a->children, &at, NULL, &pid, NULL);) pids[count++] = pid;
  for (size_t i = 0; i < count; i++) {
    struct child *c = map_get_id(&a->children, pids[i]);
    if (c) take(a, c);
  }
  free(pids);
}

void children_look(uv_signal_t *signal, int number) {
  struct agent *a = signal->data;
  (void)number;
  for (siginfo_t info = {0}; a->children.len; info = (siginfo_t){0}) {
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid) return;
    struct child *c = map_get_id(&a->children, (uint64_t)info.si_pid);
    if (!c) {
      look_at_all(a);
      return;
    }
    if (!take(a, c)) return;
  }
}

/* Adds the file actions.  A descriptor that has a number below count would be overwritten: `low` gets a copy
 * of it with a higher number, which the caller closes. */
static int add_actions(posix_spawn_file_actions_t *actions, const int fds[], int count, int low[]) {
  int error = 0;
  for (int i = 0; i < count; i++)
    if (fds[i] >= 0 && fds[i] < count && (low[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, count)) < 0) return errno;
  for (int i = 0; i < count && !error; i++)
    error = fds[i] < 0 ? posix_spawn_file_actions_addopen(actions, i, "/dev/null", i ? O_RDWR : O_RDONLY, 0)
                       : posix_spawn_file_actions_adddup2(actions, low[i] >= 0 ? low[i] : fds[i], i);
  return error;
}

static int set_signals(posix_spawnattr_t *attributes) {
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  int error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  if (!error) error = posix_spawnattr_setsigmask(attributes, &none);
  return error ? error : posix_spawnattr_setsigdefault(attributes, &all);
}

/* Starts the program; any thread.  Returns 0 or an errno. */
static int start(const struct child_program *program, pid_t *pid) {
  enum { FDS_MAX = 8 };
  int low[FDS_MAX] = {-1, -1, -1, -1, -1, -1, -1, -1}, count = program->count;
  char *const *env = program->env ? program->env : environ;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (count > FDS_MAX) return EINVAL;
  int error = posix_spawn_file_actions_init(&actions);
  if (!error && (error = posix_spawnattr_init(&attributes))) posix_spawn_file_actions_destroy(&actions);
  if (!error) {
    error = add_actions(&actions, program->fds, count, low);
    if (!error) error = set_signals(&attributes);
    if (!error) error = posix_spawn(pid, program->argv[0], &actions, &attributes, program->argv, env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  for (int i = 0; i < count; i++)
    if (low[i] >= 0) close(low[i]);
  return error;
}

enum { LONG_WORDS = 64 << 10 /* bytes of words, and of the pointers to them: the kernel takes 0.2 ms */ };

/* Takes the words off *left, until it is negative. */
static void count_words(char *const words[], ssize_t *left) {
  for (; words && *words && *left >= 0; words++)
    *left -= (ssize_t)(strnlen(*words, LONG_WORDS + 1) + 1 + sizeof *words);
}

bool child_is_long(const struct child_program *program) {
  ssize_t left = LONG_WORDS;
  count_words(program->argv, &left);
  count_words(program->env ? program->env : environ, &left);
  return left < 0;
}

/* Puts the child into the map.  Returns 0 or ENOMEM: then it is killed. */
static int take_in(struct agent *a, struct child *c, pid_t pid,
                   void (*ended)(struct child *c, int status, int signal)) {
  *c = (struct child){.pid = pid, .ended = ended};
  if (!map_put_id(&a->children, (uint64_t)pid, c)) return 0;
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  c->pid = 0;
  return ENOMEM;
}

int child_start(struct agent *a, struct child *c, const struct child_program *program,
                void (*ended)(struct child *c, int status, int signal)) {
  pid_t pid;
  int error = start(program, &pid);
  return error ? error : take_in(a, c, pid, ended);
}

static void run_start(struct job *job) {
  struct child_job *s = (struct child_job *)job;
  atomic_store(&s->thread, gettid());
  s->error = start(&s->program, &s->pid);
}

static void on_started(struct job *job) {
  struct child_job *s = (struct child_job *)job;
  struct agent *a = job->agent;
  struct child *c = s->child;
  pid_t pid = s->pid;
  LIST_REMOVE(s, in_list);
  if (!s->error && c) s->error = take_in(a, c, pid, s->ended);
  bool runs = !s->error && c;
  s->done(s); /* may free s */
  if (runs && map_get_id(&a->children, (uint64_t)pid) == c) take(a, c);
}

void child_job_start(struct agent *a, struct child_job *s, struct child *c,
                     const struct child_program *program, size_t bytes,
                     void (*ended)(struct child *c, int status, int signal),
                     void (*done)(struct child_job *s)) {
  s->program = *program;
  s->child = c;
  s->ended = ended;
  s->done = done;
  s->pid = 0;
  s->error = 0;
  atomic_init(&s->thread, 0);
  LIST_INSERT_HEAD(&a->starts, s, in_list);
  job_continue(a, &s->job, bytes, run_start, on_started);
}

void child_job_forget(struct child_job *s) {
  s->child = NULL;
}

bool children_come_from(const struct agent *a, pid_t thread) {
  const struct child_job *s;
  LIST_FOREACH(s, &a->starts, in_list)
  if (atomic_load(&s->thread) == thread) return true;
  return false;
}

void child_forget(struct agent *a, struct child *c) {
  if (c->pid) map_remove_id(&a->children, (uint64_t)c->pid);
  c->pid = 0;
}
