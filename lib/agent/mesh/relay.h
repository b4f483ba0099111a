/* relay: which links go through a third node (mesh/tunnel.h), and the calls for them.
 *
 * A node that is started with --via names its relays (core/relays.h) in its hello, and members tell them on
 * (members.h).  A node that cannot connect to it asks one of them for a tunnel: one to which it is linked
 * itself, directly.  The relay calls the node over their link, which must be direct, too, so a tunnel never
 * goes through another one:
 *
 *   {"call": {"id": N, "from": NAME, "address": ADDRESS}}    NAME asks from the IP address ADDRESS ("" when
 * it is not known) for a tunnel to the receiver
 *
 * Private to the mesh and its tests. I/O thread only. */
#ifndef AGENT_MESH_RELAY_H
#define AGENT_MESH_RELAY_H

#include "base/err.h"

#include <jansson.h>

struct dial_target;
struct peer;

/* Why a peer is not reached through its relays, which follow in the format. */
#define RELAY_NONE "this node has no direct link to its relays: %s"

/* Notes the relays that a peer has, as its hello or another member has told them. */
void relay_note(struct peer *p, const char *list);

/* The peer through which p can be reached now; NULL: there is none.  After a failure, another one is tried
 * first (relay_failed). */
struct peer *relay_of(const struct peer *p);
void relay_failed(struct peer *p);

/* The relays of p, where this node is none of them and has a direct link to none of them; or NULL. */
const char *relay_missing(const struct peer *p);

/* Where the relay itself is: *out points into it. */
void relay_target(const struct peer *relay, struct dial_target *out);

/* Handles the value of {"call": …}. */
int relay_take_call(struct peer *p, const json_t *value) MUST_CHECK;

#endif
