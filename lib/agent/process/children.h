/* children: the guards that the agent starts, and their ends.
 *
 * A child is started without a copy of the page tables of the agent (posix_spawn): fork takes 1 ms for each
 * 10 MB that the agent holds, and holds up the I/O thread meanwhile.  posix_spawn in turn returns once the
 * kernel has copied the words of the child, which takes 30 ms for 120,000, so a thread of the pool starts a
 * child with many words (child_job_start).  I/O thread only. */
#ifndef AGENT_PROCESS_CHILDREN_H
#define AGENT_PROCESS_CHILDREN_H

#include "agent/http/jobs.h"
#include "agent/state.h"

#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>

/* A process; zeroed storage of the caller. */
struct child {
  pid_t pid; /* 0: it was not started, has been waited for, or was forgotten */
  void (*ended)(struct child *c, int status, int signal);
};

/* Waits for children whose end SIGCHLD tells; `signal` is the handle of that signal.  The callback of
 * uv_signal_start. */
void children_look(uv_signal_t *signal, int number);

/* What is started: argv[0], a path, with this environment (NULL: that of the agent), the default action for
 * every signal, and the descriptors fds[count] as 0, 1, …; -1: /dev/null.  They must be closed on exec.  All
 * is borrowed until the start is done. */
struct child_program {
  char *const *argv, *const *env;
  const int *fds;
  int count;
};

/* Has the program so many words that a thread of the pool is to start it?  Takes microseconds, whatever it
 * has. */
bool child_is_long(const struct child_program *program);

/* Starts the program.  `ended` runs once, unless the child is forgotten before.  Returns 0 or an errno. */
int child_start(struct agent *a, struct child *c, const struct child_program *program,
                void (*ended)(struct child *c, int status, int signal));

/* A start by a thread of the pool; the caller's storage. */
struct child_job {
  struct job job;
  LIST_ENTRY(child_job) in_list; /* a->starts */
  struct child_program program;
  struct child *child; /* NULL: forgotten */
  pid_t pid;           /* of the child that was started */
  int error;           /* why none was */
  atomic_int thread;   /* the id of the thread that starts it; 0: none yet */
  void (*ended)(struct child *c, int status, int signal);
  void (*done)(struct child_job *s); /* the child runs, or s->error is an errno; may free s */
};

/* Has a thread of the pool start the program.  `done` runs once, after this has returned; `ended` not before
 * `done`.  bytes: of the words, as for job_continue. */
void child_job_start(struct agent *a, struct child_job *s, struct child *c,
                     const struct child_program *program, size_t bytes,
                     void (*ended)(struct child *c, int status, int signal),
                     void (*done)(struct child_job *s));

/* Does this thread of the agent start children whose numbers are not known yet?  Those that it started before
 * its id was read from /proc are known to this function. */
bool children_come_from(const struct agent *a, pid_t thread);

/* Waits no more for the child.  Nothing happens where there is none. */
void child_forget(struct agent *a, struct child *c);

/* The same for a child whose start is under way. `done` runs nevertheless. */
void child_job_forget(struct child_job *s);

#endif
