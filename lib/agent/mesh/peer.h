/* peer: a node as the mesh sees it, and the states in which a connection to it can be.  Private to the mesh
 * and its tests.
 *
 *   mesh.c        peers, subscribers, connecting and parting, the life of the mesh
 *   mesh_send.c   signals to a peer, and its queue
 *   mesh_query.c  members, links and metrics
 *   handshake.c   the states of a peer
 *   peer_line.c   the lines of a peer, handed to the modules that they belong to
 *   members.c     who is connected to whom; members_dial.c: attempts to connect, again and again
 *   ondemand.c    links by need
 *   liveness.c    heartbeats
 *   series.c      long signals, in pieces
 *   relay.c       which links go through a third node
 *   renewal.c     a lost counter of creations
 *
 *              wanted              taken
 *        DOWN ───────▶ OFFERING ──────────▶ AWAITING
 *                          │ known             ▲
 *                          ▼         taken     │
 *                      RESETTING ──────────────┘
 *
 *        DOWN, OFFERING, RESETTING, AWAITING ──offer──▶ OPENING ──opened──▶ OPEN
 *                 │                                        │                  │ hello
 *                 │                                        │ hello            ▼            names
 *                 └───────────────hello────────────────▶ GREETED ──opened─▶ SYNCING ───────────────▶ UP
 *
 *        DOWN, OFFERING, RESETTING, AWAITING ──one way──▶ AWAITING        OPENING ──unreached──▶ AWAITING
 *        OFFERING, RESETTING, AWAITING ──invited──▶ OPENING      OFFERING, RESETTING ──relayed──▶ OPENING
 *
 *        every state but DOWN ──lost, part──▶ DOWN      SYNCING, UP ──bye──▶ DOWN      UP ──dormant──▶ DOWN
 *        every state but DOWN and UP ──deadline──▶ DOWN
 *
 * The node that gets an offer makes the connection.  The node that offers makes it when it has said that it
 * cannot be connected to (one way), or when it turns out to be unreachable: so one direction is enough.
 *
 * A peer to which no offer can be sent may be reached through a relay (relay.h): this node then opens its
 * stream there without an offer, and takes the life of the first hello for the peer's.
 *
 * A hello and an offer say which OS process has sent them (`life`). When the peer of a connection sends
 * another hello (GREETED, SYNCING, UP), or an offer that asks to forget the link (SYNCING, UP), the peer has
 * begun anew: its link is lost, and the hello or offer is handled as in DOWN. A hello of another life is
 * refused in every state that has a transport. An offer of another life is refused in OPENING, OPEN and
 * GREETED; in SYNCING and UP it waits:
 *
 *        SYNCING, UP ──offer of another life──▶ the same, with a claim, and the peer is sent a ping
 *              claim ──proved──▶ the offer is refused, the link stays
 *              claim ──lost, bye, part──▶ DOWN ──offer──▶ OPENING
 *
 * The table in handshake.c has every state and event. */
#ifndef AGENT_MESH_PEER_H
#define AGENT_MESH_PEER_H

#include "agent/errands.h"
#include "agent/mesh/mesh.h"
#include "agent/mesh/series.h"
#include "agent/mesh/transport.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/ring.h"
#include "core/tags.h"
#include "wire/frame.h"
#include "wire/scan.h"

/* From PEER_OPENING on a peer has a transport, and before that it has none.  "Our" means this node's. */
enum peer_state {
  PEER_DOWN = 1,
  PEER_OFFERING,  /* our offer is being sent to the peer's ports, one after the other */
  PEER_RESETTING, /* as OFFERING; the offer asks the peer to forget a link that this node does not have */
  PEER_AWAITING,  /* the peer has taken our offer, and its stream is expected */
  PEER_OPENING,   /* our stream is being opened */
  PEER_OPEN,      /* our stream is open, and the peer's is expected */
  PEER_GREETED,   /* the peer's stream is open, and ours is being opened */
  PEER_SYNCING,   /* both streams are open, our names are sent, and the peer's names are expected */
  PEER_UP,
  PEER_STATES
};

enum peer_event {
  PEER_WANTED,    /* a user of this node, or members.c, wants the connection */
  PEER_TAKEN,     /* the answer to our offer: the peer opens its stream */
  PEER_KNOWN,     /* the answer to our offer: the peer believes that it has a link to this node already */
  PEER_REFUSED,   /* our offer has failed at one port */
  PEER_OFFER,     /* the peer offers a link */
  PEER_HELLO,     /* the peer has opened a stream, and this is its hello */
  PEER_OPENED,    /* our stream is open */
  PEER_NAMES,     /* the peer has sent its names */
  PEER_BYE,       /* the peer has sent its farewell */
  PEER_LOST,      /* the transport has failed, or none can be made */
  PEER_DEADLINE,  /* the time to connect is over */
  PEER_PART,      /* this node parts from the peer */
  PEER_PROVED,    /* the peer has answered the ping that was sent because another node claims its name */
  PEER_ONE_WAY,   /* as OFFER, by a peer that cannot be connected to */
  PEER_INVITED,   /* the answer to our offer: this node has to make the connection */
  PEER_RELAYED,   /* our offer has failed, or cannot be sent: our stream is to go through a relay */
  PEER_UNREACHED, /* this node cannot make the connection to the peer, whose offer it has not answered yet */
  PEER_DORMANT,   /* both nodes have agreed to close the idle link (ondemand.h) */
  PEER_EVENTS
};

/* The details of an event, by kind of event. */
struct peer_detail {
  const struct error *why;   /* REFUSED, BYE, LOST, DEADLINE, PART: the error that waiters get */
  bool reached;              /* REFUSED: the host has accepted or refused the connection */
  uint64_t life;             /* INVITED: the peer's */
  const char *reason;        /* PART: the reason in the farewell to the peer */
  const char *last;          /* DORMANT: the last line of this node's stream; NULL: the peer has sent its */
  const struct hello *hello; /* OFFER, HELLO: borrowed */
  const char *source; /* OFFER, HELLO: the address from which it came; INVITED: the address of the peer */
  bool reset;         /* OFFER: the peer has no link to this node */
  struct incoming *stream; /* HELLO */
  const json_t *names;     /* NAMES */
  struct error *refusal;   /* OFFER, HELLO: filled when peer_event fails */
  bool known;              /* OFFER, output: the peer is connected already, and nothing is to be done */
  bool claims;             /* OFFER, output: another OS process than the connected one has sent it */
};

enum { MESH_DRAIN = 4 }; /* how many pieces of an errand a signal of a queue counts as */

enum { PEER_BEATS = 8 }; /* how many times of beats are kept: more beats than a link may leave unanswered */

/* A caller of mesh_connect that has not been told the outcome yet. */
struct waiter {
  struct waiter *next;
  mesh_done *done;
  void *data;
};

/* Where a node listens, as far as is known. */
struct place {
  char address[NODE_HOST_MAX + 3]; /* as the host of a URL; "" when not known */
  uint16_t port;                   /* 0: not known */
};

/* What ondemand.c keeps of a peer. */
struct ondemand {
  bool present;         /* mesh_present was called last, and not mesh_gone; */
  uint32_t creation;    /* its creation; */
  struct place place;   /* and where the peer listens */
  uint32_t up_creation; /* while told_up: the creation that the subscribers were told of */
  uint32_t lost;  /* the creation with which the peer went down: to be present with it does not make it up */
  int64_t hellos; /* how many this node has written to the peer */
  int64_t number; /* SYNCING, UP: the number of the peer's hello; 0: the peer does not link on demand */
  bool dormant;   /* until UP: the last link was closed as idle, and its connection goes on */
  bool asked;     /* UP: this node has asked the peer to close the link, and sends no signal meanwhile */
  bool ended;     /* a connection has ended during a handshake, which the user is told next: */
  uint32_t ended_incarnation, ended_epoch;
  struct map ties;   /* UP, DORMANT: what keeps the link: monitors by ref, links by their two pids */
  bool ties_unknown; /* memory ran out for one: the link is kept */
  int64_t used_ms;   /* when the last signal went over the link */
  int64_t sent_before, received_before; /* p->sent and p->received when the link began */
};

/* The nodes that a peer says it is connected to. */
struct view {
  uint64_t *bits; /* a bit for each peer, at its index */
  size_t words;
  uint64_t digest; /* digest of the names in the set and of this node's name */
  bool us;         /* this node is in the set */
};

/* The offer of another node that claims the name of a connected peer. The offer waits until the peer has
 * answered a ping or is lost. */
struct claim {
  mesh_answer *answer;
  void *data;
  json_t *hello; /* its offer */
  char source[64];
  uint64_t ping;
};

struct peer {
  struct mesh *mesh;
  size_t index; /* in mesh->all */
  struct nodename name;
  enum peer_state state;
  uint32_t incarnation; /* the incarnation of its last hello; 0: never met */
  uint64_t life; /* from PEER_OPENING on: the life in the hello or offer for which the transport was made */
  /* Where our stream goes or last went; or where, as other members say, the peer listens. */
  struct place place;
  bool dials_only; /* it cannot be connected to, as its last hello or another member has said */
  char *via; /* the relays through which it can be reached (core/relays.h), as these have said; NULL: none */
  unsigned via_turn; /* which of them is tried first */
  /* From PEER_OPENING on: the peer through whose node our stream or the peer's goes; NULL: directly. */
  struct peer *relay;
  char tags[TAGS_SIZE]; /* of its last hello; or, while it is DOWN, as another member has told them */

  struct scan scan; /* OFFERING, RESETTING: the port that is tried, and the failures so far */
  bool direct;      /* OFFERING, RESETTING: the offer goes to `place`, which is tried before the scan */
  struct error direct_failed; /* why the offer to `place` failed */
  uint16_t offered_port;      /* to which our last offer was sent */
  /* Our offer; may still be unanswered when the peer has opened its stream already. */
  struct dial_request *offer;
  mesh_answer *answer; /* OPENING, GREETED: called to answer the peer's offer when our stream is open */
  void *answer_data;
  struct transport *transport;

  struct claim *claim;    /* SYNCING, UP */
  struct waiter *waiters; /* told when the peer is up and its members are up or cannot be reached */
  int joins;              /* how many members of the peer this node is still connecting to */
  uv_timer_t deadline;

  /* liveness.c, from SYNCING on */
  uv_timer_t liveness;
  uint64_t asked;              /* number of the oldest beat that the peer has not answered */
  int64_t asked_ms;            /* when that beat was sent; 0: every beat was answered */
  struct transport_life moved; /* the state of the transport at the last beat */
  bool suspected;              /* quiet for more than 1.5 heartbeats */
  int64_t round_trip_ns;       /* of the last beat that was answered; -1: none */
  /* The peer was quiet for too long; it is lost if it is still quiet once the sockets have been read. */
  bool second_look;

  struct signal *queue, **queue_end; /* signals to the peer that wait for the link or behind others */
  size_t queued;                     /* the weight of the queued signals */
  size_t queued_free;                /* how many of them are between the two kernels (series_is_free) */
  struct errand drain;               /* in DOWN and from SYNCING on, until the queue is empty (mesh_send.c) */
  bool draining;
  struct lane *lane;          /* of the transport, and open: nothing is queued, nor goes in pieces; or NULL */
  atomic_llong sent_directly; /* signals that were sent by lanes, since the start; `sent` has the others */
  int64_t sent, received, losses; /* signals, and ends of the link without a farewell, since the start */
  struct series series;           /* from SYNCING on: the long signals of both directions */
  bool transport_busy;            /* the queue of the transport is above TRANSPORT_QUEUE_HIGH */
  bool busy;                      /* the user was told that the way to the peer is busy */
  int64_t failed_ms;              /* when connecting last failed; 0: never, or the peer was up since */
  bool told_up;                   /* the subscribers were told nodeup last */
  struct ondemand ondemand;
  struct ring linked; /* UP, on demand: in mesh->crowd.linked */

  /* members.c */
  uint64_t hash;        /* hash of the name */
  bool meshes;          /* SYNCING, UP: the peer sends its members, and is sent the members of this node */
  bool named;           /* another peer has named it since it was last down */
  bool dialling;        /* it is counted in mesh->dials */
  bool join;            /* mesh_join wants it: log lines say so, and its place is not given to another name */
  struct peer *sponsor; /* the peer whose `joins` counts this peer */
  struct view view;
  uv_timer_t retry;
  int64_t until_ms; /* until when it is tried again; 0: it is not tried again */
  int64_t tried_ms; /* when it was last tried */
  int backoff_ms;   /* time between the last two tries */
  uint32_t parted;  /* its creation when one of the two nodes last parted with a farewell; 0: none did */
  struct peer *next_dial, **pprev_dial; /* in the queue of mesh->first_dial */
  struct error trouble;                 /* why it went down, or could not be reached */
  char rival[NODE_HOST_MAX + 16];       /* where a second node of its name listens, or "" */
  int64_t rival_ms;                     /* when the rival was last logged; 0: not yet */
  bool rival_due;                       /* the rival is to be logged at the next heartbeat */

  struct log_limit lines; /* of peer_may_log */
};

/* On demand, links that are needed wait while there are many, and those that are idle are closed. */
struct crowd {
  struct ring linked;   /* the peers that are UP; the one that was looked at last is the last one */
  struct errand sweep;  /* in `errands` of the mesh while all of these are looked at, */
  bool sweeping;        /* that is, while this is true; */
  int sweep_left;       /* and how many of them still are */
  unsigned long looked; /* how often one was looked at, since the start */
  uv_timer_t timer;     /* runs while they wait */
  int max;              /* how many there may be now; 0: links_many of the config */
  int64_t since_ms;     /* when the wait began, or a link last ended */
};

struct mesh {
  struct mesh_config config;
  const struct mesh_events *events;
  void *data;        /* passed to the events */
  struct map peers;  /* name → struct peer */
  struct peer **all; /* in the order in which they were first heard of */
  size_t count;
  size_t reused; /* index in `all` of the peer whose place was given to another name last */
  struct mesh_subscriber *subscribers;
  uint64_t pings;  /* sent so far */
  uint64_t life;   /* number of this OS process, for its hello */
  uint64_t random; /* state of members.c's random numbers */

  /* members.c */
  uint64_t self_hash; /* hash of this node's name */
  struct view ours;   /* the peers that are UP and mesh */
  json_t *news;       /* changes that the peers have not been told yet */
  uv_timer_t news_due;
  int dials;                           /* peers that members.c is connecting to */
  struct peer *first_dial, **end_dial; /* queue of the peers that members.c will connect to */
  struct errand dialling;              /* in `errands` while it connects to peers of that queue, */
  bool is_dialling;                    /* that is, while this is true */
  int links;                           /* peers that are UP */
  struct crowd crowd;                  /* ondemand.c */
  bool views_changed;                  /* a view has changed since the last heartbeat */
  int unsettled;                       /* heartbeats since the mesh was last complete */
  bool told_incomplete, told_full;     /* the log has a line about an incomplete mesh, about a full table */
  uint64_t resyncs;                    /* how often this node has asked a peer for its whole set of members */

  uv_timer_t heartbeat;
  uint64_t beats; /* sent so far */
  /* When the last PEER_BEATS beats were sent, each at its number modulo PEER_BEATS. */
  int64_t beat_ms[PEER_BEATS], beat_ns[PEER_BEATS]; /* by the loop's clock, and by clock_ns */
  struct errands errands;                           /* the queues of peers */
  struct frames frames;                             /* scratch: the frame being read */
  struct buf line;                                  /* scratch: the frame being written */
  uint64_t lost_pids;                               /* nodetab_refused at the last log line about it */
  int64_t lost_pids_ns;                             /* when that line was logged */
  struct log_limit refusals; /* of lines about offers and streams of nobody that is known */
  struct log_limit comings;  /* of lines about members that come and go without a link */
  bool left_out;             /* lines about peers, or of these two, were left out, which is not logged yet */
  bool stopping;
};

/* May a line about a peer be logged that the peer can cause again and again, as by linking?  p: NULL, for an
 * offer or a stream of nobody that is known.  Heartbeats log how many were left out. */
bool peer_may_log(struct mesh *m, struct peer *p);

/* The peer of that name, which is made if this node has none; NULL when there is no room for it. */
struct peer *peer_get(struct mesh *m, const struct nodename *name);
/* The same; NULL with *e set when there is no room (LIMIT_NODES), which is counted, or memory ran out. */
struct peer *peer_need(struct mesh *m, const struct nodename *name, struct error *e);

/* Tells the subscribers, and the log, nodeup (why: NULL) or nodedown, unless they were told that last. */
void peer_tell(struct peer *p, const char *why);

/* Ends the present connection to that incarnation of the peer, over which signals may have gone. */
void peer_end_connection(struct peer *p, uint32_t incarnation);

/* A signal of the link was written, or handed to the user. */
void peer_count(struct peer *p, const struct signal *s, bool sent);

/* Begins the time to connect anew. */
void peer_begin_deadline(struct peer *p);

/* handshake.c calls these when a peer changes its state. */
void peer_leave_down(struct peer *p); /* starts the deadline and the scan */
void peer_enter_up(struct peer *p);   /* tells the subscribers and the waiters */
/* Ends the connection or the try to connect; event is the event that has caused it. */
void peer_enter_down(struct peer *p, enum peer_state from, enum peer_event event, const struct error *why);

/* Tells the waiters that the peer is up, once this node is connected to the peer's members as well. */
void peer_check_joined(struct peer *p);
/* Tells the waiters the outcome: why is NULL when the peer is up. */
void peer_tell_waiters(struct peer *p, const struct error *why);

/* Tells the user whether senders to the peer must wait: the queue, the transport or the series are busy. */
void peer_check_busy(struct peer *p);

/* Writes a signal (consumed) as a frame; or lines; or a line of JSON (consumed; NULL: memory ran out).  When
 * the write fails, the link is given up, and the last two return false. */
void peer_write(struct peer *p, struct signal *s);
bool peer_write_text(struct peer *p, const struct buf *lines);
bool peer_write_json(struct peer *p, json_t *line);
/* Writes the line {key: value} (value is consumed; NULL: memory ran out).  0, ERR_NOMEM, or ERR_BUSY: as much
 * waits as may; the link stays. */
int peer_write_line(struct peer *p, const char *key, json_t *value) MUST_CHECK;

/* Has the queued signals of a peer that is SYNCING sent, in later turns of the loop where there are many. */
void peer_send_queue(struct peer *p);
/* Has the queued signals of a peer that is DOWN refused, in the same way, unless it is about to be dialled.
 */
void peer_refuse_queue(struct peer *p);

/* Cuts "two@rane: " off "two@rane: connection reset": the caller prints the name itself. */
const char *peer_without_name(const struct peer *p, const char *text);

/* Closes the lane, before a signal is queued, goes in pieces, or the link ends. */
void peer_close_lane(struct peer *p);

#endif
