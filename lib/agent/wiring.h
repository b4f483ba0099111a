/* wiring: what the mesh tells the other parts of a node, and what the registry needs of them: the one place
 * where they meet.  I/O thread only. */
#ifndef AGENT_WIRING_H
#define AGENT_WIRING_H

#include "agent/mesh/mesh.h"
#include "agent/state.h"

extern const struct mesh_events agent_mesh_events; /* their data is the struct agent */

/* Makes the registry of global names.  ERR_NOMEM. */
int agent_make_registry(struct agent *a) MUST_CHECK;

/* Answers a signal (consumed) whose receiver is not there, as Erlang does. */
void agent_undeliverable(struct agent *a, struct signal *s, int code, const char *reason);

#endif
