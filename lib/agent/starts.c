/* Orderings: the counter is raised after the node has taken the creation, by a thread of the pool.  A node
 * that dies between the two finds the old counter, and is told again by its peers to take a newer creation.
 * Two raises may run in any order, since the counter keeps the newest. */
#include "agent/starts.h"

#include "agent/http/jobs.h"
#include "core/creation.h"
#include "core/statedir.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Writes the state directory of the node, which is made, and its runtime directory. */
static int find(const struct agent *a, char state[PATH_MAX], char copy[PATH_MAX], struct error *e) {
  if (snprintf(copy, PATH_MAX, "%s/%s", a->config->runtime_dir, a->self) >= PATH_MAX)
    return error_set(e, ERR_SYSTEM, "the runtime directory's path is too long: set NODE_RUNTIME_DIR");
  return statedir_make(a->self, state, PATH_MAX, e);
}

void starts_count(struct agent *a) {
  char state[PATH_MAX], copy[PATH_MAX];
  struct error e, why;
  int code = find(a, state, copy, &e);
  if (!code) code = creation_take(state, copy, &a->creation, &why, &e);
  if (!code && *why.text) log_line(&a->log, "%s", error_text(&why));
  if (!code) return;
  a->creation = creation_of_clock();
  log_line(
      &a->log,
      "the starts of this node cannot be counted: %s; it takes the creation %lu, so its pids are long; mend "
      "that, or choose another directory with NODE_STATE_DIR, and start it anew",
      error_text(&e), (unsigned long)a->creation);
}

/* --- a raise -------------------------------------------------------------------------------------------- */

struct raise {
  struct job job;
  uint32_t creation;
  struct error e;
};

static void run(struct job *job) {
  struct raise *r = (struct raise *)job;
  char state[PATH_MAX], copy[PATH_MAX];
  if (!find(job->agent, state, copy, &r->e)) {
    int code = creation_raise(state, copy, r->creation, &r->e);
    (void)code; /* r->e has it */
  }
}

static void done(struct job *job) {
  struct raise *r = (struct raise *)job;
  if (r->e.code)
    log_line(&job->agent->log, "the counter of creations cannot be raised to %lu: %s",
             (unsigned long)r->creation, error_text(&r->e));
  free(r);
}

void starts_renewed(struct agent *a, uint32_t creation) {
  struct raise *r = calloc(1, sizeof *r);
  a->creation = creation;
  if (!r) {
    log_line(&a->log, "out of memory: the counter of creations is not raised to %lu",
             (unsigned long)creation);
    return;
  }
  r->creation = creation;
  job_start(a, &r->job, 0, run, done);
}
