/* GET /metrics: the statistics of the node.  Each is declared, with its name and sentence, by the module that
 * has it (base/metrics.h); this is the list of the modules. */
#include "agent/api/routes.h"
#include "agent/cluster/cluster.h"
#include "agent/http/server.h"
#include "agent/kernel/bounds.h"
#include "agent/registry/registry.h"
#include "agent/memory.h"
#include "agent/mesh/mesh.h"
#include "agent/outputs.h"
#include "agent/process/outcome.h"
#include "agent/watchdog.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/fds.h"
#include "base/metrics.h"

#include <stddef.h>
#include <stdlib.h>

/* What takes longer than the I/O thread may take is measured by a thread of the pool.  Then an errand
 * measures the links, a slice a turn of the loop; and where there are many, a thread of the pool puts the
 * text together. */
struct measurement {
  struct request_job of;
  struct agent *agent;
  struct vm_largest largest;
  int descriptors;
  struct errand links;
  size_t at; /* of mesh_metrics */
  struct mesh_use mesh;
  struct metrics of_links, rest;
  char *text;
  size_t n;
};

enum { LINKS_FEW = 64 }; /* so many links make a text that the I/O thread may put together */

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

/* Writes all but the links. */
static void put_rest(struct measurement *m) {
  struct agent *a = m->agent;
  struct metrics *out = &m->rest;
  version_metrics(a, out);
  program_metrics(a, m->descriptors, out);
  vm_metrics(a->vm, out);
  vm_largest_metrics(&m->largest, out);
  memory_metrics(a, m->mesh.waiting, out);
  outcomes_metrics(a, out);
  registry_metrics(a->registry, out);
  if (a->cluster) cluster_metrics(a->cluster, out);
  nodetab_metrics(a->nodes, out);
  server_metrics(a, out);
  outputs_metrics(a, out);
  watchdog_metrics(a, out);
  bounds_metrics(a, &m->largest, &m->mesh, out);
}

static void measurement_free(struct measurement *m) {
  size_t n;
  free(metrics_take(&m->of_links, &n));
  free(metrics_take(&m->rest, &n));
  free(m->text);
  free(m);
}

/* On a thread of the pool, where there are many links. */
static void write_text(struct job *job) {
  struct measurement *m = (struct measurement *)job;
  struct metrics *parts[] = {&m->rest, &m->of_links};
  struct buf text = BUF_INIT;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    size_t n;
    char *part = metrics_take(parts[i], &n);
    buf_append(&text, part, part ? n : 0);
    text.failed |= !part;
    free(part);
  }
  m->n = text.len;
  m->text = buf_take(&text);
}

static void answer(struct measurement *m, struct request *r) {
  if (r) {
    respond_text(r, "text/plain; version=0.0.4", m->text, m->n);
    m->text = NULL;
  }
  measurement_free(m);
}

static void on_text(struct job *job) {
  struct measurement *m = (struct measurement *)job;
  answer(m, request_job_done(&m->of));
}

static bool links_step(struct errand *e, int *left) {
  struct measurement *m = (struct measurement *)((char *)e - offsetof(struct measurement, links));
  bool more = m->of.request;
  for (; more && *left > 0; *left -= MESH_MEASURE)
    more = mesh_metrics(m->agent->mesh, &m->at, 1, &m->mesh, &m->of_links);
  return !more;
}

static void links_done(struct errand *e) {
  struct measurement *m = (struct measurement *)((char *)e - offsetof(struct measurement, links));
  struct request *r = request_job_done(&m->of);
  if (!r) {
    measurement_free(m);
    return;
  }
  put_rest(m);
  if (m->mesh.nodes > LINKS_FEW) {
    request_job(r, &m->of, write_text, on_text);
    return;
  }
  write_text(&m->of.job);
  answer(m, r);
}

static void measure(struct job *job) {
  struct measurement *m = (struct measurement *)job;
  vm_find_largest(job->agent->vm, &m->largest);
  m->descriptors = fds_open();
}

static void on_measured(struct job *job) {
  struct measurement *m = (struct measurement *)job;
  struct request *r = request_job_done(&m->of);
  if (!r) {
    measurement_free(m);
    return;
  }
  request_slices(r, &m->of);
  m->links = (struct errand){.name = "the metrics of links", .step = links_step, .done = links_done};
  errands_begin(&m->agent->errands, &m->links);
}

void api_metrics(struct request *r) {
  struct measurement *m = calloc(1, sizeof *m);
  if (!m) {
    respond_code(r, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return;
  }
  m->agent = request_agent(r);
  request_job(r, &m->of, measure, on_measured);
}
