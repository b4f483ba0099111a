/* Relied upon: a process that ends hands its children to their next subreaper before its own end can be
 * waited for, so the first look after the end of a guard sees them. A command is in the list of hosted
 * processes for as long as its guard was not waited for, so a child of the agent that is not the guard of a
 * command is an orphan, unless a thread of the pool has started it and its command does not have its pid yet.
 * The kernel gives orphans to the first thread of the agent, which is none of the pool. */
#include "agent/process/orphans.h"

#include "agent/process/children.h"
#include "agent/process/command.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct guards {
  pid_t *pids; /* sorted */
  size_t count;
  int orphans; /* how many children are not guards */
};

static int by_number(const void *a, const void *b) {
  const pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
  return (x > y) - (x < y);
}

/* parent: the thread of the agent below which the kernel lists the child. */
static void end_orphan(const struct agent *a, struct guards *g, pid_t parent, pid_t pid) {
  if (g->count && bsearch(&pid, g->pids, g->count, sizeof pid, by_number)) return;
  if (children_come_from(a, parent)) return;
  g->orphans++;
  kill(pid, SIGKILL);
  waitpid(pid, NULL, WNOHANG);
}

/* Ends the orphans among the children of one thread, because the kernel lists children by the thread that has
 * started or adopted them. */
static void end_orphans_of(const struct agent *a, struct guards *g, const char *thread) {
  char path[300];
  snprintf(path, sizeof path, "/proc/self/task/%s/children", thread);
  FILE *children = fopen(path, "re");
  for (int pid; children && fscanf(children, "%d", &pid) == 1;) end_orphan(a, g, (pid_t)atoi(thread), pid);
  if (children) fclose(children);
}

/* Ends all orphans; true when there was none. */
static bool none(struct agent *a) {
  struct guards g = {0};
  if (commands_pids(a, &g.pids, &g.count)) return false;
  if (g.count) qsort(g.pids, g.count, sizeof *g.pids, by_number);
  DIR *threads = opendir("/proc/self/task");
  for (const struct dirent *d; threads && (d = readdir(threads));)
    if (*d->d_name != '.') end_orphans_of(a, &g, d->d_name);
  const bool looked = threads;
  if (threads) closedir(threads);
  free(g.pids);
  return looked && !g.orphans;
}

static void on_tick(uv_timer_t *t) {
  struct agent *a = t->data;
  holds_note(&a->holds, "the search for orphans of commands", NULL);
  const bool done = none(a);
  if (!done && ++a->orphans_tries < ORPHANS_TRIES) return;
  if (!done) log_line(&a->log, "processes that a command has left behind do not end on SIGKILL");
  uv_timer_stop(t);
}

void orphans_init(struct agent *a) {
  a->orphans.data = a;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void orphans_look(struct agent *a) {
  a->orphans_tries = 0;
  if (!uv_is_active((uv_handle_t *)&a->orphans)) uv_timer_start(&a->orphans, on_tick, 0, ORPHANS_TICK_MS);
}

bool orphans_left(const struct agent *a) {
  return uv_is_active((const uv_handle_t *)&a->orphans);
}
