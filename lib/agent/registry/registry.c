/* Invariant: the class of a registry never changes, so that each call reaches the functions of one kind. */
#include "agent/registry/registry.h"

#include "base/metrics.h"

void registry_register(struct registry *g, const char *name, npid pid, bool force, registry_done *done,
                       void *data) {
  g->class->enter(g, name, pid, force, done, data);
}

void registry_unregister(struct registry *g, const char *name, registry_done *done, void *data) {
  g->class->remove(g, name, done, data);
}

void registry_unregister_own(struct registry *g, const char *name, uint64_t token, registry_done *done,
                             void *data) {
  g->class->remove_own(g, name, token, done, data);
}

void registry_down(struct registry *g, npid pid) {
  g->class->down(g, pid);
}

void registry_whereis(struct registry *g, const char *name, registry_found *found, void *data) {
  g->class->whereis(g, name, found, data);
}

bool registry_asks(const struct registry *g) {
  return g->class->asks;
}

struct registry_counts registry_counts(const struct registry *g) {
  return g->class->counts(g);
}

void registry_metrics(const struct registry *g, struct metrics *out) {
  g->class->metrics(g, out);
}

void registry_finish(struct registry *g) {
  if (g) g->class->finish(g);
}

void registry_put_counts(const struct registry *g, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct registry_counts, known), METRIC_GAUGE, METRIC_COUNT, "node_global_names",
       "Names in the global registry."},
      {METRIC(struct registry_counts, names), METRIC_GAUGE, METRIC_COUNT, "node_own_global_names",
       "Those of this node's processes."},
      {METRIC(struct registry_counts, registered), METRIC_COUNTER, METRIC_COUNT,
       "node_name_registrations_total", "Global names given to processes of this node."},
      {METRIC(struct registry_counts, conflicts), METRIC_COUNTER, METRIC_COUNT, "node_name_conflicts_total",
       "Global names that processes of this node have lost to older registrations."},
      {METRIC(struct registry_counts, resyncs), METRIC_COUNTER, METRIC_COUNT, "node_name_resyncs_total",
       "Times that the names of another node were not the ones known here, and were asked for again."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct registry_counts counts = registry_counts(g);
  metrics_put_set(out, &set, &counts);
}
