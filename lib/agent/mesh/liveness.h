/* liveness: how this node detects that a peer is gone when no connection reports an end.
 *
 * Every heartbeat this node sends {"beat": {"n": N, ...}} to each peer whose streams are both open; the peer
 * answers {"pong": N}. A peer is suspected when it was quiet for 1.5 heartbeats, and lost when it was quiet
 * for 4. The quiet begins with the last byte that arrived. While bytes arrive but answers do not, the quiet
 * begins one heartbeat before the oldest unanswered beat was sent: so both ends of a link that is dead in one
 * direction lose it within four heartbeats.
 *
 * A pong may wait behind a large message in either direction. Therefore unanswered beats do not count while
 * many bytes move: any byte is a sign of life.
 *
 * Private to the mesh and its tests.  I/O thread only. */
#ifndef AGENT_MESH_LIVENESS_H
#define AGENT_MESH_LIVENESS_H

#include "agent/mesh/peer.h"

enum {
  LIVENESS_LOST = 4,    /* heartbeats of silence after which a link is lost */
  LIVENESS_BULK = 4096, /* more bytes than this in a heartbeat are more than beats and pongs */
};

void liveness_init(struct peer *p); /* initialises the peer's timer; mesh_finish closes it */

/* Watch the peer's link from SYNCING until DOWN. */
void liveness_start(struct peer *p);
void liveness_stop(struct peer *p);

/* Called when a line of the peer has arrived: ends a suspicion. */
void liveness_line(struct peer *p);

/* Sends the next beat to all peers whose streams are both open. */
void liveness_beat(struct mesh *m);

/* Handle lines of the peer: answer a beat and pass its fields to the user of the mesh; note an answer.
 * Non-zero: the line is malformed. */
int liveness_take_beat(struct peer *p, const json_t *fields) MUST_CHECK;
int liveness_take_pong(struct peer *p, const json_t *number) MUST_CHECK;

#endif
