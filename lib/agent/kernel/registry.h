/* registry: the cluster's global names.  Every node holds all of them, so whereis is a look into
 * agent->globals.
 *
 * Registering: the member (up, or we) that ranks highest for the name in rendezvous hashing arbitrates; it
 * gives a token, larger than any it has seen, and answers once all members have the name.  A name goes when
 * its process ends (its node tells the others) or its node is lost (every node sees for itself).  When two
 * parts of a cluster meet, the older registration (smaller token) stays; the loser's process gets the message
 * ("name_conflict", name, winner).  I/O thread only. */
#ifndef AGENT_KERNEL_REGISTRY_H
#define AGENT_KERNEL_REGISTRY_H

#include "agent/state.h"

#include <jansson.h>

enum { REGISTRY_TIMEOUT_MS = 5000 };

int registry_init(struct agent *a) MUST_CHECK;
void registry_finish(struct agent *a);

/* Runs exactly once: e NULL and yes: done; e NULL and not yes: the name is taken (register), or there is no
 * such name (unregister). */
typedef void registry_done(void *data, const struct error *e, bool yes);
void registry_register(struct agent *a, const char *name, npid pid, bool force, registry_done *done,
                       void *data);
void registry_unregister(struct agent *a, const char *name, registry_done *done, void *data);

/* The snapshot that a peer gets when a link comes up: [[name, pid, token], …] of the names of this node's
 * processes. registry_merge takes a peer's snapshot (borrowed). */
json_t *registry_snapshot(struct agent *a);
void registry_merge(struct agent *a, const json_t *names);

void registry_node_down(struct agent *a, uint32_t incarnation);

/* The kernel got a DOWN (borrowed): removes the names of that process of this node, here and on the members.
 */
void registry_down(struct agent *a, const struct signal *s);

/* The calls "name_claim", "name_put" and "name_drop" of members; each consumes the call. */
void registry_op_claim(struct agent *a, struct signal *call, struct term_reader args);
void registry_op_put(struct agent *a, struct signal *call, struct term_reader args);
void registry_op_drop(struct agent *a, struct signal *call, struct term_reader args);

#endif
