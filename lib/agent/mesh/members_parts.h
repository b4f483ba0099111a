/* members_parts: what members.c and members_dial.c share; no other file includes it.  I/O thread only. */
#ifndef AGENT_MESH_MEMBERS_PARTS_H
#define AGENT_MESH_MEMBERS_PARTS_H

#include "agent/mesh/members.h"
#include "base/random.h"

static inline int64_t members_now(const struct mesh *m) {
  return (int64_t)uv_now(m->config.loop);
}

/* A number from 0 to below - 1, for jitter. */
static inline uint64_t members_random(struct mesh *m, uint64_t below) {
  return random_next(&m->random) % below;
}

/* --- members_dial.c ------------------------------------------------------------------------------------- */

/* The peer is to be tried again: for the time of --rejoin, or, on demand, for as long as it is present. */
void members_want(struct peer *p);

/* Connects to the peer, if it is DOWN, as members_dial does; one that listens nowhere, and has no relay, is
 * mostly waited for. */
void members_dial_now(struct peer *p);

/* Connects to the peer as members_dial_now does, after so many milliseconds, unless it is in the queue of
 * dials. */
void members_dial_after(struct peer *p, int64_t ms);

/* Connects to the peer after twice the time that came before the last attempt; or gives the peer up, when the
 * time for which it is wanted is over. */
void members_retry_later(struct peer *p);

/* Takes the peer out of the queue of dials, if it is in it. */
void members_leave_queue(struct peer *p);

/* Ends a try to connect: the peer no longer counts in mesh->dials, nor in the `joins` of its sponsor. */
void members_settle_dial(struct peer *p);

/* The link to a sponsor is lost: no peer counts in its `joins` any more. */
void members_forget_sponsor(struct peer *sponsor);

/* Keeps why the peer could not be reached, and logs it unless the attempt before failed with the same code.
 */
void members_note_trouble(struct peer *p, const struct error *why);

/* Do others reach this node through the peer?  Then it is tried again also when it has stopped. */
bool members_is_own_relay(const struct peer *p);

#endif
