/* ondemand: links that are made when they are needed, between nodes that learn of each other elsewhere
 * (mesh_present in mesh.h).
 *
 * A link is idle when no signal has gone over it for a while, and no process of one node monitors or is
 * linked with one of the other.  Either node may then ask to close it:
 *
 *   {"idle": N}        the sender has received N signals over this link, and sends none until it is answered
 *   {"dormant": true}  the answer, and the last line: the link is closed
 *   {"active": true}   the answer: the link stays, as a signal or a tie is under way
 *
 * The peer agrees only when it has sent N signals as well.  So no signal is lost, and the connection goes on
 * without a link: it is dormant.  Its epoch (core/npid.h) stays, and nobody is told.  The next signal makes
 * another link, which carries the connection on when both hellos say that it is dormant.  Otherwise, or when
 * no link can be made, or when the peer is told gone, the connection ends as if its link had been lost.
 *
 * Private to the mesh and its tests.  I/O thread only. */
#ifndef AGENT_MESH_ONDEMAND_H
#define AGENT_MESH_ONDEMAND_H

#include "agent/mesh/hello.h"
#include "agent/mesh/peer.h"

/* True while the peer is asked to close the link: signals to it wait in its queue. */
bool ondemand_holds(const struct peer *p);

/* A signal went over the link: notes when, and the tie that it makes or ends. */
void ondemand_signal(struct peer *p, const struct signal *s);

void ondemand_init(struct mesh *m);
void ondemand_finish(struct mesh *m); /* closes its handle */

/* May another link be made now?  On demand, while there are `links_many`, a link that is needed waits for
 * others to become idle, which are closed for it.  Where none ends for a while, as all are used, more are
 * made nevertheless, `links_many` at a time.  When there is room again, members_pump is called. */
bool ondemand_has_room(struct mesh *m);

/* Called every heartbeat: asks to close the links that are idle. */
void ondemand_beat(struct mesh *m);

/* Handle lines of the peer.  Non-zero: the line is malformed, or not expected. */
int ondemand_take_idle(struct peer *p, const json_t *received) MUST_CHECK;
int ondemand_take_dormant(struct peer *p, const json_t *yes) MUST_CHECK;
int ondemand_take_active(struct peer *p, const json_t *yes) MUST_CHECK;

/* Adds "demand" to the hello for the peer, on demand. */
void ondemand_hello(struct peer *p, json_t *hello);

/* Was the offer, of the present life of a peer that is linked, written before the hello of the peer's stream?
 * Then it does not say that the peer has no link. */
bool ondemand_is_late(const struct peer *p, const struct hello *offer);

/* The peer has opened its stream, with that hello and incarnation, which are not yet those of the peer:
 * decides whether the dormant connection goes on.  Runs no callback. */
void ondemand_greet(struct peer *p, const struct hello *h, uint32_t incarnation);
/* Called once the state has changed: tells the user of a connection that ondemand_greet has ended.  False:
 * the user has parted from the peer meanwhile. */
bool ondemand_greeted(struct peer *p);

/* The mesh calls these when the peer changes its state. */
void ondemand_leave_down(struct peer *p);
void ondemand_syncing(struct peer *p);
bool ondemand_up(struct peer *p); /* false: the user has parted from the peer meanwhile */
/* lost: its connection ends.  Runs no callback. */
void ondemand_down(struct peer *p, bool lost, bool dormant);

/* Frees what is kept of the ties of a connection that has ended. */
void ondemand_untie(struct peer *p);

#endif
