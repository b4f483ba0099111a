/* GET /metrics: the statistics of the node.  Each is declared, with its name and sentence, by the module that
 * has it (base/metrics.h); this is the list of the modules. */
#include "agent/api/routes.h"
#include "agent/http/server.h"
#include "agent/kernel/bounds.h"
#include "agent/registry/registry.h"
#include "agent/memory.h"
#include "agent/mesh/mesh.h"
#include "agent/outputs.h"
#include "agent/process/outcome.h"
#include "agent/watchdog.h"
#include "base/clock.h"
#include "base/fds.h"
#include "base/metrics.h"

#include <stdlib.h>

/* What takes longer than the I/O thread may take is measured by a thread of the pool. */
struct measurement {
  struct request_job of;
  struct vm_largest largest;
  int descriptors;
};

struct program_stats {
  int descriptors, descriptors_max;
  int64_t uptime, busy; /* nanoseconds */
};

static int64_t processor_time(void) {
  struct timespec t;
  return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) ? -1 : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void program_metrics(const struct agent *a, int descriptors, struct metrics *out) {
  static const struct metric rows[] = {{METRIC(struct program_stats, uptime), METRIC_GAUGE, METRIC_NS,
                                        "node_uptime_seconds", "Time since the start of the node."},
                                       {METRIC(struct program_stats, busy), METRIC_COUNTER, METRIC_NS,
                                        "node_busy_seconds_total",
                                        "Processor time that the node has used, without its commands."},
                                       {METRIC(struct program_stats, descriptors), METRIC_GAUGE, METRIC_COUNT,
                                        "node_descriptors", "Descriptors that the node has open."},
                                       {METRIC(struct program_stats, descriptors_max), METRIC_GAUGE,
                                        METRIC_COUNT, "node_descriptors_max", "How many it may have open."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct program_stats stats = {.descriptors = descriptors,
                                .descriptors_max = fds_limit(),
                                .uptime = clock_ns() - a->started_ns,
                                .busy = processor_time()};
  metrics_put_set(out, &set, &stats);
}

static void version_metrics(const struct agent *a, struct metrics *out) {
  static const struct metric rows[] = {
      {0, sizeof(int), METRIC_GAUGE, METRIC_COUNT, "node_info", "1, with the version of the node."}};
  static const struct metric_set set = METRIC_SET("version", rows);
  const int one = 1;
  metrics_open(out, &set);
  metrics_put(out, a->config->version, &one);
}

static void answer(struct request *r, const struct measurement *m) {
  struct agent *a = request_agent(r);
  struct metrics out = {0};
  version_metrics(a, &out);
  program_metrics(a, m->descriptors, &out);
  vm_metrics(a->vm, &out);
  vm_largest_metrics(&m->largest, &out);
  memory_metrics(a, &out);
  outcomes_metrics(a, &out);
  mesh_metrics(a->mesh, &out);
  registry_metrics(a->registry, &out);
  nodetab_metrics(a->nodes, &out);
  server_metrics(a, &out);
  outputs_metrics(a, &out);
  watchdog_metrics(a, &out);
  bounds_metrics(a, &m->largest, &out);
  size_t n;
  char *text = metrics_take(&out, &n);
  respond_text(r, "text/plain; version=0.0.4", text, n);
}

static void measure(struct job *job) {
  struct measurement *m = (struct measurement *)job;
  vm_find_largest(job->agent->vm, &m->largest);
  m->descriptors = fds_open();
}

static void on_measured(struct job *job) {
  struct measurement *m = (struct measurement *)job;
  struct request *r = request_job_done(&m->of);
  if (r) answer(r, m);
  free(m);
}

void api_metrics(struct request *r) {
  struct measurement *m = calloc(1, sizeof *m);
  if (m)
    request_job(r, &m->of, measure, on_measured);
  else
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}
