/* Invariant: the class of a registry never changes, so that each call reaches the functions of one kind. */
#include "agent/registry/registry.h"

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

struct registry_counts registry_counts(const struct registry *g) {
  return g->class->counts(g);
}

void registry_metrics(const struct registry *g, struct metrics *out) {
  g->class->metrics(g, out);
}

void registry_finish(struct registry *g) {
  if (g) g->class->finish(g);
}
