/* Invariant: a job waits in the list only while JOBS_LARGE_AT_ONCE large jobs run, so the end of one of them
 * begins the next.
 *
 * Orderings: `done` of a job runs before the next job is chosen, so what `done` gives to job_continue is the
 * next to begin. */
#include "agent/http/jobs.h"

#include "agent/state.h"

#include <stdlib.h>

struct jobs {
  struct job *first, **end; /* those that wait */
  int large;                /* how many large jobs run */
};

struct jobs *jobs_new(void) {
  struct jobs *all = calloc(1, sizeof *all);
  if (all) all->end = &all->first;
  return all;
}

void jobs_free(struct jobs *all) {
  free(all);
}

static void on_work(uv_work_t *work) {
  struct job *job = work->data;
  job->run(job);
}

static void begin(struct job *job);

static void begin_next(struct jobs *all) {
  struct job *next = all->first;
  all->large--;
  if (!next) return;
  all->first = next->next;
  if (!all->first) all->end = &all->first;
  begin(next);
}

static void on_done(uv_work_t *work, int status) {
  struct job *job = work->data;
  struct jobs *all = job->agent->jobs;
  bool large = job->large; /* done frees the job */
  (void)status;            /* no job is cancelled */
  holds_note(&job->agent->holds, "the end of a job of the pool", NULL);
  job->done(job);
  if (large) begin_next(all);
}

/* uv_queue_work fails only for want of a function. */
static void begin(struct job *job) {
  if (job->large) job->agent->jobs->large++;
  job->work.data = job;
  if (uv_queue_work(&job->agent->loop, &job->work, on_work, on_done)) abort();
}

/* Begins the job, where it need not wait. */
static bool begins(struct agent *a, struct job *job, size_t bytes, void (*run)(struct job *job),
                   void (*done)(struct job *job)) {
  *job = (struct job){.agent = a, .large = bytes > JOBS_LARGE, .run = run, .done = done};
  if (job->large && a->jobs->large >= JOBS_LARGE_AT_ONCE) return false;
  begin(job);
  return true;
}

void job_start(struct agent *a, struct job *job, size_t bytes, void (*run)(struct job *job),
               void (*done)(struct job *job)) {
  struct jobs *all = a->jobs;
  if (begins(a, job, bytes, run, done)) return;
  *all->end = job;
  all->end = &job->next;
}

void job_continue(struct agent *a, struct job *job, size_t bytes, void (*run)(struct job *job),
                  void (*done)(struct job *job)) {
  struct jobs *all = a->jobs;
  if (begins(a, job, bytes, run, done)) return;
  job->next = all->first;
  if (!all->first) all->end = &job->next;
  all->first = job;
}
