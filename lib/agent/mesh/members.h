/* members: how all members of a mesh come to be connected to all others, and stay so.
 *
 * Each node tells its peers whom it is connected to: in whole when a link is made and when a peer asks for
 * it, by changes afterwards.  So a node has a view of each peer: the set of nodes that the peer is connected
 * to. Each beat carries the digest of the sender's set; a receiver whose view has another digest asks for the
 * whole set.  A member that a peer names and that is not connected here is connected to.
 *
 *   {"members": [MEMBER, …]}               the sender is connected to exactly these
 *   {"news": [["+", MEMBER] | ["-", NAME, CREATION, STOPPED], …]}     changes, oldest first
 *   {"resync": true}                       asks for the members in whole
 *   MEMBER is [NAME, CREATION, ADDRESS, PORT]; STOPPED says that the node has stopped in order
 *
 * A node is tried again, after 1 s and then ever more rarely up to every 30 s, each time shifted at random by
 * up to half: when its link was lost without a farewell, when a peer has named it and it was not reached, and
 * when it is to be joined (mesh_join).  It is not tried again after a farewell, nor after this node has
 * parted from it, until somebody here or there connects, or a peer names it with another creation.
 *
 * A node that does not mesh is told nothing, and is not told of.  Private to the mesh and its tests.  I/O
 * thread only. */
#ifndef AGENT_MESH_MEMBERS_H
#define AGENT_MESH_MEMBERS_H

#include "agent/mesh/peer.h"

enum {
  MEMBERS_LINE_MAX = 4 << 20,      /* bytes of a line: more than MESH_PEERS_MAX members need */
  MEMBERS_DIALS_MAX = 16,          /* connections that are being made at a time without a user's wish */
  MEMBERS_NEWS_MS = 20,            /* changes wait so long for others, where they are urgent */
  MEMBERS_PATIENCE_MS = 200,       /* a member that a change has named is expected to connect itself first; */
  MEMBERS_PATIENCE_MORE_MS = 1000, /* the one of two nodes whose name is the larger waits for so long */
  MEMBERS_RETRY_MS = 1000,
  MEMBERS_RETRY_MAX_MS = 30000,
  MEMBERS_SETTLED = 4, /* heartbeats after which a mesh that is still incomplete is logged */
};

void members_init(struct mesh *m);
void members_finish(struct mesh *m);       /* closes its handles, and frees */
void members_add(struct peer *p);          /* a new peer: its timer, its hash */
void members_close(struct peer *p);        /* closes the timer */
void members_forget(struct peer *p);       /* the peer's place is given to another name, */
void members_named(struct peer *p);        /* which it has now */
bool members_wanted(const struct peer *p); /* it is being tried again, or about to be tried */

/* What the states of a peer mean for the members. */
void members_leave_down(struct peer *p);
void members_syncing(struct peer *p); /* sends the members in whole, before this node's names */
/* First when a peer comes up or goes down, and call nobody. */
void members_up(struct peer *p);
void members_down(struct peer *p, enum peer_state from, enum peer_event event, const struct error *why);
/* Last then, when all others have been told: the next peer is connected to. */
void members_told(struct peer *p);

/* Another node that claims the peer's name was refused: shows and logs that. */
void members_note_rival(struct peer *p, const struct claim *claim);

/* The heartbeat: sends the changes, and puts the digest into the beat's fields. */
void members_beat(struct mesh *m, json_t *fields);

/* The peer's lines.  Non-zero: the line makes no sense. */
int members_take_list(struct peer *p, const json_t *list) MUST_CHECK;
int members_take_news(struct peer *p, const json_t *news) MUST_CHECK;
int members_take_resync(struct peer *p, const json_t *yes) MUST_CHECK;
void members_take_digest(struct peer *p, const json_t *fields);

#endif
