/* children: the guards that the agent starts, and their ends.
 *
 * A child is started without a copy of the page tables of the agent (posix_spawn): fork takes 1 ms for each
 * 10 MB that the agent holds, and holds up the I/O thread meanwhile.  I/O thread only. */
#ifndef AGENT_PROCESS_CHILDREN_H
#define AGENT_PROCESS_CHILDREN_H

#include "agent/state.h"

#include <sys/types.h>

/* A process; zeroed storage of the caller. */
struct child {
  pid_t pid; /* 0: it was not started, has been waited for, or was forgotten */
  void (*ended)(struct child *c, int status, int signal);
};

/* Waits for children whose end SIGCHLD tells; `signal` is the handle of that signal.  The callback of
 * uv_signal_start. */
void children_look(uv_signal_t *signal, int number);

/* Starts argv[0], a path, with this environment (NULL: that of the agent), the default action for every
 * signal, and the descriptors fds[count] as 0, 1, …; -1: /dev/null.  They must be closed on exec.  `ended`
 * runs once, unless the child is forgotten before.  Returns 0 or an errno. */
int child_start(struct agent *a, struct child *c, char *const argv[], char *const env[], const int fds[],
                int count, void (*ended)(struct child *c, int status, int signal));

/* Waits no more for the child.  Nothing happens where there is none. */
void child_forget(struct agent *a, struct child *c);

#endif
