/* jobs: work that takes longer than the I/O thread may take at a time, done by the threads of libuv's pool.
 *
 * At most JOBS_LARGE_AT_ONCE jobs of more than JOBS_LARGE bytes run at a time, so that they do not occupy
 * all threads of the pool; the others wait, and begin in the order in which they were given, after those that
 * go on with what an earlier job has made (job_continue). Smaller jobs begin at once. I/O thread only, except
 * for `run`. */
#ifndef AGENT_HTTP_JOBS_H
#define AGENT_HTTP_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct agent;

enum {
  JOBS_INLINE = 8 << 10, /* work on fewer bytes is done on the I/O thread: in well under a millisecond */
  JOBS_LARGE = 1 << 20,
  JOBS_LARGE_AT_ONCE = 2, /* of the pool's four threads */
};

/* The caller's storage, which must stay where it is until `done` is called. */
struct job {
  uv_work_t work;
  struct agent *agent;
  struct job *next; /* of the jobs that wait */
  bool large;
  void (*run)(struct job *job);  /* on a thread of the pool */
  void (*done)(struct job *job); /* afterwards, on the I/O thread */
};

/* The jobs of a node (agent->jobs).  NULL when memory runs out. */
struct jobs *jobs_new(void);
/* Frees it, once no job waits or runs; accepts NULL. */
void jobs_free(struct jobs *all);

/* Has a job on so many bytes done. `done` runs exactly once, never before job_start returns. */
void job_start(struct agent *a, struct job *job, size_t bytes, void (*run)(struct job *job),
               void (*done)(struct job *job));

/* The same, for a job that uses or frees the result of an earlier one: it begins before all that wait, so
 * that the results of many requests, which may be much longer than their bodies, are not in memory together.
 */
void job_continue(struct agent *a, struct job *job, size_t bytes, void (*run)(struct job *job),
                  void (*done)(struct job *job));

#endif
