/* members: keeps every member of a mesh connected to every other member.
 *
 * Each node tells its peers which nodes it is connected to: the whole set when a link is made and when a
 * peer asks for it, and changes afterwards. So a node has a view of each peer: the set of nodes that the
 * peer is connected to. Each beat carries the digest of the sender's set; a receiver whose view has
 * another digest asks for the whole set. A node connects to each member that a peer names and that it is
 * not connected to.
 *
 *   {"members": [MEMBER, …]}               the sender is connected to exactly these
 *   {"news": [["+", MEMBER] | ["-", NAME, CREATION, STOPPED], …]}     changes, oldest first
 *   {"resync": true}                       asks for the members in whole
 *   MEMBER is [NAME, CREATION, ADDRESS, PORT, TAGS, VIA]; TAGS (core/tags.h) and VIA (core/relays.h) may be
 * missing; STOPPED says that the node has stopped in order
 *
 * This node tries again to connect to a node whose link was lost without a farewell, to a node that a peer
 * has named and that was not reached, and to a node that is to be joined (mesh_join). It tries after 1 s,
 * then after twice the time before, up to 30 s, each time shifted at random by up to half. It does not try
 * again after a farewell of the node, nor after it has itself parted from the node, until a user of either
 * node connects the two, or a peer names the node with another creation.
 *
 * A node that does not mesh is sent no members, and is not named to other nodes. Private to the mesh and its
 * tests. I/O thread only. */
#ifndef AGENT_MESH_MEMBERS_H
#define AGENT_MESH_MEMBERS_H

#include "agent/mesh/peer.h"

enum {
  MEMBERS_LINE_MAX = 4 << 20, /* bytes of a line: more than the default of LIMIT_NODES needs */
  MEMBERS_DIALS_MAX = 16,     /* how many connections members.c makes at a time */
  MEMBERS_DIAL_COST = 500,    /* how many pieces of an errand the begin of a connection counts as */
  MEMBERS_NEWS_MS = 20,       /* how long an urgent change waits for further changes before it is sent */
  /* How long a node waits for a member that a change has named to connect by itself. */
  MEMBERS_PATIENCE_MS = 200,
  /* The same, for the one of the two nodes whose name sorts last. */
  MEMBERS_PATIENCE_MORE_MS = 1000,
  MEMBERS_RETRY_MS = 1000,
  MEMBERS_RETRY_MAX_MS = 30000,
  MEMBERS_SETTLED = 4, /* heartbeats after which a mesh that is still incomplete is logged */
};

void members_init(struct mesh *m);
void members_finish(struct mesh *m); /* closes its handles, and frees */
void members_add(struct peer *p);    /* a new peer: its timer, its hash */
void members_close(struct peer *p);  /* closes the timer */
/* Clears what members.c knows of a peer, before the place of the peer is given to another name. */
void members_forget(struct peer *p);
void members_named(struct peer *p); /* called once the peer has the new name */
/* True when the peer is being tried again, or is about to be tried. */
bool members_wanted(const struct peer *p);

/* Connects to a peer that is DOWN, once fewer peers than the bound are being connected to. */
void members_dial(struct peer *p);
/* The peer is neither to be connected to, nor tried again, nor joined. */
void members_undial(struct peer *p);
/* Connects to peers that wait for that, as there may be room now (ondemand_has_room). */
void members_pump(struct mesh *m);
/* On demand: connects to a present peer whose link was lost, and tries again. */
void members_redial(struct peer *p);

/* Called by the mesh when a peer enters or leaves a state. */
void members_leave_down(struct peer *p);
void members_syncing(struct peer *p); /* sends the whole set of members, before this node's names */
/* The mesh calls these first when a peer comes up or goes down. They run no callback. */
void members_up(struct peer *p);
void members_down(struct peer *p, enum peer_state from, enum peer_event event, const struct error *why);
/* The mesh calls this last, when subscribers and waiters have been told: connects to the next peer of the
 * queue. */
void members_told(struct peer *p);

/* Records and logs that another node, which claims the peer's name, was refused. */
void members_note_rival(struct peer *p, const struct claim *claim);

/* Called every heartbeat: sends the changes, and puts the digest into the fields of the beat. */
void members_beat(struct mesh *m, json_t *fields);

/* Handle lines of the peer. Non-zero: the line is malformed. */
int members_take_list(struct peer *p, const json_t *list) MUST_CHECK;
int members_take_news(struct peer *p, const json_t *news) MUST_CHECK;
int members_take_resync(struct peer *p, const json_t *yes) MUST_CHECK;
void members_take_digest(struct peer *p, const json_t *fields);

#endif
