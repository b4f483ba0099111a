/* Invariant: a->children maps the pid of each child that was started, and neither waited for nor forgotten.
 * A pid in it is not reused, because only this module waits for these processes.
 *
 * Orderings: a child may end before child_start has returned; SIGCHLD is handled in a later turn of the loop,
 * when the child is in the map.  Signals of several ends may be one SIGCHLD. */
#include "agent/process/children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
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

int child_start(struct agent *a, struct child *c, char *const argv[], char *const env[], const int fds[],
                int count, void (*ended)(struct child *c, int status, int signal)) {
  enum { FDS_MAX = 8 };
  int low[FDS_MAX] = {-1, -1, -1, -1, -1, -1, -1, -1};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  pid_t pid;
  if (count > FDS_MAX) return EINVAL;
  int error = posix_spawn_file_actions_init(&actions);
  if (!error && (error = posix_spawnattr_init(&attributes))) posix_spawn_file_actions_destroy(&actions);
  if (!error) {
    error = add_actions(&actions, fds, count, low);
    if (!error) error = set_signals(&attributes);
    if (!error) error = posix_spawn(&pid, argv[0], &actions, &attributes, argv, env ? env : environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  for (int i = 0; i < count; i++)
    if (low[i] >= 0) close(low[i]);
  if (error) return error;
  *c = (struct child){.pid = pid, .ended = ended};
  if (!map_put_id(&a->children, (uint64_t)pid, c)) return 0;
  kill(pid, SIGKILL); /* memory ran out */
  waitpid(pid, NULL, 0);
  c->pid = 0;
  return ENOMEM;
}

void child_forget(struct agent *a, struct child *c) {
  if (c->pid) map_remove_id(&a->children, (uint64_t)c->pid);
  c->pid = 0;
}
