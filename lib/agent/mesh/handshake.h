/* handshake: how two nodes connect and disconnect: the table of a peer's states and events. Private to the
 * mesh and its tests. I/O thread only. */
#ifndef AGENT_MESH_HANDSHAKE_H
#define AGENT_MESH_HANDSHAKE_H

#include "agent/mesh/peer.h"

/* The state to which an event takes a peer. It is the same state when the event changes nothing, or when the
 * action decides the state by raising a further event. */
enum peer_state handshake_next(enum peer_state state, enum peer_event event);

/* Applies an event to a peer: runs the cell of the table. 0, or an error code when an OFFER or a HELLO is
 * refused; *d->refusal then says why. */
int peer_event(struct peer *p, enum peer_event event, struct peer_detail *d);

/* transport_events.line: takes a line of the peer (peer_line.c).  data is the peer; non-zero: the line is
 * malformed, or too long, so that the link is lost. */
int peer_take_line(void *data, char *text, size_t n);

/* Applies PEER_LOST, with the error "NAME: what". */
void peer_fail(struct peer *p, int code, const char *what);

#endif
