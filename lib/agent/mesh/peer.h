/* peer: a node as the mesh sees it, and the states in which a connection to it can be.  Shared by mesh.c
 * (peers and signals), handshake.c (states), members.c (who sees whom) and liveness.c (heartbeats), and
 * private to them and to their tests.
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
 *        every state but DOWN ──lost, part──▶ DOWN      GREETED, SYNCING, UP ──bye──▶ DOWN
 *        every state but DOWN and UP ──deadline──▶ DOWN
 *
 * A hello and an offer say which OS process has sent them (`life`).  The peer of a connection (GREETED,
 * SYNCING, UP) that sends another hello, or (SYNCING, UP) an offer that asks to forget the link, has begun
 * anew: its link is lost, and its hello or offer counts as in DOWN.  A hello of another life is refused in
 * every state that has a transport.  So is an offer of another life in OPENING, OPEN and GREETED.  In SYNCING
 * and UP that offer waits:
 *
 *        SYNCING, UP ──offer of another life──▶ the same, with a claim, and the peer is sent a ping
 *              claim ──proved──▶ the offer is refused, the link stays
 *              claim ──lost, bye, part──▶ DOWN ──offer──▶ OPENING
 *
 * The table in handshake.c has every state and event. */
#ifndef AGENT_MESH_PEER_H
#define AGENT_MESH_PEER_H

#include "agent/mesh/mesh.h"
#include "agent/mesh/transport.h"
#include "base/buf.h"
#include "base/map.h"
#include "wire/frame.h"
#include "wire/scan.h"

/* From PEER_OPENING on a peer has a transport, and before that it has none.  "Our" means this node's. */
enum peer_state {
  PEER_DOWN = 1,
  PEER_OFFERING,  /* our offer is being sent to one of the peer's ports after the other */
  PEER_RESETTING, /* the same; the offer asks the peer to forget a link that this node does not have */
  PEER_AWAITING,  /* the peer has taken our offer, and its stream is expected */
  PEER_OPENING,   /* our stream is being opened */
  PEER_OPEN,      /* our stream is open, and the peer's is expected */
  PEER_GREETED,   /* the peer's stream is open, and ours is being opened */
  PEER_SYNCING,   /* both streams are open, our names are sent, and the peer's names are expected */
  PEER_UP,
  PEER_STATES
};

enum peer_event {
  PEER_WANTED,   /* somebody on this node wants the connection */
  PEER_TAKEN,    /* the answer to our offer: the peer opens its stream */
  PEER_KNOWN,    /* the answer to our offer: the peer believes that it has a link to this node already */
  PEER_REFUSED,  /* our offer has failed at one port */
  PEER_OFFER,    /* the peer offers a link */
  PEER_HELLO,    /* the peer has opened a stream, and this is its hello */
  PEER_OPENED,   /* our stream is open */
  PEER_NAMES,    /* the peer has sent its names */
  PEER_BYE,      /* the peer has said why it parts */
  PEER_LOST,     /* the transport has failed, or none can be made */
  PEER_DEADLINE, /* the time to connect is over */
  PEER_PART,     /* this node parts from the peer */
  PEER_PROVED,   /* the peer has answered the ping that was sent because another node claims its name */
  PEER_EVENTS
};

/* What an event brings. */
struct peer_detail {
  const struct error *why;   /* REFUSED, BYE, LOST, DEADLINE, PART: what those who wait are told */
  bool reached;              /* REFUSED: the host has taken or refused the connection */
  const char *reason;        /* PART: what the peer is told */
  const struct hello *hello; /* OFFER, HELLO: borrowed */
  const char *source;        /* OFFER, HELLO: the address that it came from */
  bool reset;                /* OFFER: the peer has no link to this node */
  struct incoming *stream;   /* HELLO */
  const json_t *names;       /* NAMES */
  struct error *refusal;     /* OFFER, HELLO: filled when peer_event fails */
  bool known;                /* OFFER, out: the peer is connected, and nothing is to be done */
  bool claims;               /* OFFER, out: it is another node than the one that is connected */
};

enum { PEER_BEATS = 8 }; /* times of beats that are kept: more than a link may stay without an answer */

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

/* The nodes that a peer says it is connected to. */
struct view {
  uint64_t *bits; /* a bit for each peer, at its index */
  size_t words;
  uint64_t digest; /* of their names and this node's */
  bool us;         /* this node is one of them */
};

/* Another node claims the name of a peer that is connected: it waits until the peer has answered a ping, or
 * is lost. */
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
  uint32_t incarnation; /* of its last hello; 0: never met */
  uint64_t life;        /* from PEER_OPENING on: of the hello or offer that the transport was made for */
  struct place place;   /* where our stream goes, or went last; or where other members say that it listens */

  struct scan scan; /* OFFERING, RESETTING: the port that is tried, and the failures so far */
  bool direct;      /* OFFERING, RESETTING: the offer is at `place`, which is tried before the scan */
  struct error direct_failed; /* why it was not taken there */
  struct dial_request *offer; /* ours; may still be unanswered when the peer has opened its stream already */
  mesh_answer *answer; /* OPENING, GREETED: called to answer the peer's offer when our stream is open */
  void *answer_data;
  struct transport *transport;

  struct claim *claim;    /* SYNCING, UP */
  struct waiter *waiters; /* told when the peer is up and its members are up or cannot be reached */
  int joins;              /* how many of its members are still being connected to */
  uv_timer_t deadline;

  /* liveness.c, from SYNCING on */
  uv_timer_t liveness;
  uint64_t asked;              /* number of the oldest beat that the peer has not answered */
  int64_t asked_ms;            /* when that was sent; 0: each was answered */
  struct transport_life moved; /* as of the last beat */
  bool suspected;              /* quiet for more than 1.5 heartbeats */
  bool second_look; /* quiet for too long; is lost if it still is when the sockets have been read */

  struct signal *queue, **queue_end; /* signals to the peer, until SYNCING */
  size_t queued;                     /* their weight */
  int64_t failed_ms;                 /* when connecting last failed; 0: never, or it was up since */

  /* members.c */
  uint64_t hash;        /* of the name */
  bool meshes;          /* SYNCING, UP: it tells its members, and is told of ours */
  bool named;           /* another peer has told of it since it was last down */
  bool dialling;        /* it counts in mesh->dials */
  bool join;            /* wanted by mesh_join: log lines say so, and its place is not given away */
  struct peer *sponsor; /* the peer whose `joins` counts it */
  struct view view;
  uv_timer_t retry;
  int64_t until_ms; /* it is tried again until then; 0: it is not */
  int64_t tried_ms; /* when it was last tried */
  int backoff_ms;   /* between the last two tries */
  uint32_t parted;  /* its creation when one of the two nodes parted on purpose; 0: none did */
  struct peer *next_dial, **pprev_dial; /* in the queue of mesh->first_dial */
  struct error trouble;                 /* why it went down, or could not be reached */
  char rival[NODE_HOST_MAX + 16];       /* where another node of its name listens, or "" */
  int64_t rival_ms;                     /* when that was last logged; 0: not yet */
  bool rival_due;                       /* it is to be logged at the next heartbeat */
};

struct mesh {
  struct mesh_config config;
  const struct mesh_events *events;
  void *data;        /* for the events */
  struct map peers;  /* name → struct peer */
  struct peer **all; /* in the order in which they were first heard of */
  size_t count;
  struct mesh_subscriber *subscribers;
  uint64_t pings;  /* sent so far */
  uint64_t life;   /* of this OS process, in its hello */
  uint64_t random; /* state of members.c's random numbers */

  /* members.c */
  uint64_t self_hash; /* of this node's name */
  struct view ours;   /* the peers that are UP and mesh */
  json_t *news;       /* changes that the peers have not been told yet */
  uv_timer_t news_due;
  int dials;                           /* peers that members.c is connecting to */
  struct peer *first_dial, **end_dial; /* queue of those that it will connect to */
  bool pumping;                        /* the queue is being emptied */
  bool views_changed;                  /* since the last heartbeat */
  int unsettled;                       /* heartbeats since the mesh was last complete */
  bool told_incomplete, told_full;     /* the log was told of an incomplete mesh, of a full table */
  uint64_t resyncs;                    /* how often members were asked for in whole */

  uv_timer_t heartbeat;
  uint64_t beats;              /* sent so far */
  int64_t beat_ms[PEER_BEATS]; /* when the last of them were sent, each at its number modulo PEER_BEATS */
  struct frames frames;        /* scratch: the frame being read */
  struct buf line;             /* scratch: the frame being written */
  uint64_t lost_pids;          /* nodetab_refused when the log last told of it */
  int64_t lost_pids_ns;        /* when that was */
  bool stopping;
};

/* The peer of that name, made when new; NULL when there is no room for it. */
struct peer *peer_get(struct mesh *m, const struct nodename *name);

/* What happens on the way from one state to another (handshake.c calls them). */
void peer_leave_down(struct peer *p); /* starts the deadline and the scan */
void peer_enter_up(struct peer *p);   /* tells the subscribers and those who wait */
/* Gives everything up; event is the one that has led here. */
void peer_enter_down(struct peer *p, enum peer_state from, enum peer_event event, const struct error *why);

/* Tells those who wait that the peer is up, once its members are connected to as well. */
void peer_check_joined(struct peer *p);
/* Tells those who wait: why is NULL when the peer is up. */
void peer_tell_waiters(struct peer *p, const struct error *why);

/* Writes the queued signals to the transport. */
void peer_send_queue(struct peer *p);

#endif
