/* liveness: how this node finds out that a peer is gone although nobody says so.
 *
 * Every heartbeat each peer whose streams stand is sent {"beat": {"n": N, ...}}, and answers {"pong": N}.  A
 * peer is suspected when it was quiet for 1.5 heartbeats, and lost when it was quiet for 4.  It is quiet
 * since its last byte came in.  While bytes come in but answers do not, it is quiet since a heartbeat before
 * the oldest beat without an answer was sent: so both ends of a link that is dead in one direction lose it
 * within four heartbeats.
 *
 * A pong may wait behind a large message in either direction.  While many bytes move, beats without an answer
 * therefore do not count: any byte is a sign of life.
 *
 * Private to the mesh and its tests.  I/O thread only. */
#ifndef AGENT_MESH_LIVENESS_H
#define AGENT_MESH_LIVENESS_H

#include "agent/mesh/peer.h"

enum {
  LIVENESS_LOST = 4,    /* heartbeats of silence after which a link is lost */
  LIVENESS_BULK = 4096, /* more bytes than this in a heartbeat are no mere beats and pongs */
};

void liveness_init(struct peer *p); /* its timer; peer_finish closes it */

/* The peer's link is watched from SYNCING until it is down. */
void liveness_start(struct peer *p);
void liveness_stop(struct peer *p);

/* A line of the peer has come in: a peer that was suspected is not any more. */
void liveness_line(struct peer *p);

/* Sends the next beat to all peers whose streams stand. */
void liveness_beat(struct mesh *m);

/* The peer's lines: answers a beat and tells the user of its fields; takes an answer.  Non-zero: the line
 * makes no sense. */
int liveness_take_beat(struct peer *p, const json_t *fields) MUST_CHECK;
int liveness_take_pong(struct peer *p, const json_t *number) MUST_CHECK;

#endif
