/* wiring: connects the parts of a node: the events by which the mesh calls the other parts, and the functions
 * by which the registry calls its node. I/O thread only. */
#ifndef AGENT_WIRING_H
#define AGENT_WIRING_H

#include "agent/mesh/mesh.h"
#include "agent/state.h"

/* Their data is the struct agent.  After agent_make_registry. */
const struct mesh_events *agent_mesh_events(const struct agent *a);

/* Makes the registry of global names, and the cluster where there is one.  ERR_NOMEM, and the errors of
 * cluster_new. */
int agent_make_registry(struct agent *a, struct error *e) MUST_CHECK;

/* Answers a signal (consumed) whose receiver does not exist, as Erlang does. */
void agent_undeliverable(struct agent *a, struct signal *s, int code, const char *reason);

#endif
