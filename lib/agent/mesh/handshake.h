/* handshake: how two nodes meet and part: the table of a peer's states and events.  Private to the mesh and
 * its tests.  I/O thread only. */
#ifndef AGENT_MESH_HANDSHAKE_H
#define AGENT_MESH_HANDSHAKE_H

#include "agent/mesh/peer.h"

/* The state to which an event takes a peer; the same state where the event changes nothing, or where its
 * action decides (a further event follows then). */
enum peer_state handshake_next(enum peer_state state, enum peer_event event);

/* Something happens to a peer: runs the cell of the table.  0; or a code, when an OFFER or a HELLO is
 * refused: *d->refusal then says why. */
int peer_event(struct peer *p, enum peer_event event, struct peer_detail *d);

/* PEER_LOST, with the error "NAME: what". */
void peer_fail(struct peer *p, int code, const char *what);

#endif
