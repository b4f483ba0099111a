/* starts: the creation of this node, which its counter of starts gives (core/creation.h).  I/O thread only.
 */
#ifndef AGENT_STARTS_H
#define AGENT_STARTS_H

#include "agent/state.h"

/* Sets a->creation, before the node has a table of nodes: the next one of the counter in the state directory;
 * where none can be kept, one that the clock gives, with a warning in the log.  Waits for the disk. */
void starts_count(struct agent *a);

/* Sets a->creation, which the mesh has chosen (mesh/renewal.h); the pool raises the counter. */
void starts_renewed(struct agent *a, uint32_t creation);

#endif
