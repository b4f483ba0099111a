/* mesh: the membership of this node: which nodes it is connected to, how connections are made, and the
 * signals that go over them. Only the mesh knows how a member is found.
 *
 * Connecting: this node offers a link (PUT /v1/link with its hello: who it is and where it listens); the peer
 * opens its stream to this node, on a connection that it makes; this node opens its stream to the peer, on
 * the same connection. Each stream begins with a hello line and the global names of its node; the peer is up
 * once the hello and the names of both nodes have arrived. When both ends offer at the same time, each still
 * opens only one stream (transport.h).
 *
 * The mesh calls its user through a table of events and its transport through a table of functions
 * (transport.h), both given to mesh_new; it does not depend on the vm or HTTP. I/O thread only. */
#ifndef AGENT_MESH_H
#define AGENT_MESH_H

#include "base/log.h"
#include "core/nodename.h"
#include "core/npid.h"
#include "core/signal.h"

#include <jansson.h>
#include <uv.h>

struct holds_loop;
struct lanes;

enum {
  MESH_CONNECT_TIMEOUT_MS = 6000, /* time limit for all ports of a peer together */
  MESH_RETRY_MS = 1000,     /* a signal to a peer that could not be reached less than this ago fails without
                               another attempt */
  MESH_IDLE_MS = 300000,    /* on demand: a link without signals and ties for this long is closed; */
  MESH_LINKS_MANY = 64,     /* while there are more links than this, */
  MESH_IDLE_MANY_MS = 1000, /* for this long, */
  MESH_IDLE_CROWD_MS = 50,  /* or, as others are needed, for this long */
  MESH_DIALS_MAX = 64,      /* on demand: how many links this node makes at a time */
};

#define MESH_STOPPED    "stopped" /* the farewell of a node that stops */
#define MESH_DIALS_ONLY "it listens nowhere (--listen none), and connects by itself"

struct mesh;
struct metrics;
struct tunnel_call;
struct incoming;        /* a stream that a peer has opened to this node (transport.h) */
struct transport_class; /* what carries links (transport.h) */

/* What the mesh tells its user. An event may call every function of the mesh except mesh_finish and
 * mesh_free. */
struct mesh_events {
  /* A link begins: returns the global names of this node's processes, which are sent to the peer before any
   * signal; NULL: out of memory. From now on, until `down`, signals to the peer are sent after them. */
  json_t *(*snapshot)(void *data, uint32_t incarnation);
  /* The peer has sent (a part of) its own names; runs before the peer is up. False: further parts follow
   * (mesh_names), and the peer is up only after the last one. */
  bool (*synced)(void *data, uint32_t incarnation, const json_t *names);
  /* A signal has arrived from the peer of that incarnation; the callee owns it. Its epoch is that of the
   * connection. */
  void (*signal)(void *data, uint32_t incarnation, struct signal *s);
  /* A signal cannot reach its receiver; the callee owns it, and answers its sender. */
  void (*undeliverable)(void *data, struct signal *s, int code, const char *reason);
  /* The queue to that node is full, or has room again. */
  void (*busy)(void *data, uint32_t incarnation, bool busy);
  /* A long signal (signal_is_long) of a process of this node has been sent, or was dropped with the link. A
   * sender that can be suspended is to wait for this before it sends again.  `undeliverable` comes instead of
   * it.  May be NULL. */
  void (*sent)(void *data, npid from);
  /* The peer is now suspected, because it was quiet for 1.5 heartbeats, or is no longer suspected, because it
   * was heard again. When a suspected peer goes down, only `down` runs. May be NULL, as may the next two. */
  void (*suspected)(void *data, uint32_t incarnation, bool suspected);
  /* Adds fields to the beat (borrowed), which is sent to all peers every heartbeat. The mesh itself sets "n"
   * and "members". */
  void (*beat)(void *data, json_t *fields);
  /* A beat (borrowed) has arrived from a peer that is up. */
  void (*peer_beat)(void *data, uint32_t incarnation, const json_t *fields);
  /* This node has another creation from now on, because its counter was lost (mesh/renewal.h). All links are
   * lost next. May be NULL. */
  void (*renewed)(void *data, uint32_t creation);
  /* The connection with that epoch is lost. Runs for each connection over which signals may have gone. */
  void (*down)(void *data, uint32_t incarnation, uint32_t epoch, const char *reason);
};

/* Copied; the objects that it points at are borrowed. */
struct mesh_config {
  uv_loop_t *loop;
  struct nodetab *nodes;
  const struct log *log;
  struct limits *limits;    /* or NULL */
  struct holds_loop *holds; /* what the loop does (holds_note); or NULL */
  struct lanes *lanes;      /* by which schedulers send; or NULL: none does */
  const char *self;         /* name@host */
  uint32_t creation;
  const char *address; /* where this node listens */
  uint16_t port;
  bool mesh;        /* this node also connects to the members of its peers */
  bool on_demand;   /* mesh_present and mesh_gone say which nodes there are; `mesh` is then false */
  int idle_ms;      /* on demand: 0 stands for MESH_IDLE_MS */
  int links_many;   /* on demand: 0 stands for MESH_LINKS_MANY */
  bool pool;        /* long signals are encoded and decoded by libuv's pool; else at once, by this thread */
  const char *tags; /* of this node (core/tags.h); NULL: none */
  const char *via;  /* the relays through which this node can be reached (core/relays.h); NULL: none */
  int heartbeat_ms;
  int64_t rejoin_ms;      /* for how long this node tries to reach a node that was lost; 0: not at all */
  uint64_t seed;          /* seed of the random numbers; 0: taken from the system */
  int connect_timeout_ms; /* 0: MESH_CONNECT_TIMEOUT_MS */
  const struct transport_class *transport;
  void *carrier; /* passed to the open and offer of `transport` */
};

/* 0 or ERR_NOMEM. data is passed to the events. */
int mesh_new(const struct mesh_config *config, const struct mesh_events *events, void *data,
             struct mesh **out) MUST_CHECK;
void mesh_stop(struct mesh *m);   /* parts from all peers, refuses new ones */
void mesh_finish(struct mesh *m); /* closes its handles; accepts NULL */
void mesh_free(struct mesh *m);   /* after the loop has run once more; accepts NULL */

/* Connects to a node.  done runs exactly once, maybe before mesh_connect returns: e is NULL when the node is
 * up, and kernel is its kernel's pid. */
typedef void mesh_done(void *data, const struct error *e, npid kernel);
void mesh_connect(struct mesh *m, const struct nodename *to, mesh_done *done, void *data);

/* Connects to a node, and tries again for rejoin_ms of the config until it is reached. Failures are
 * logged. */
void mesh_join(struct mesh *m, const struct nodename *to);

/* As mesh_join, for a node that has answered with its name and creation at that place (an address as the host
 * of a URL).  From a node that this node has parted from it stays apart until that node is started again. */
void mesh_found(struct mesh *m, const struct nodename *node, uint32_t creation, const char *address,
                uint16_t port);

/* Undoes mesh_join and mesh_found: a node that is not connected is not tried again. */
void mesh_unjoin(struct mesh *m, const struct nodename *node);

/* Ends the link to a node, with a farewell that has the reason; false when there is none. */
bool mesh_disconnect(struct mesh *m, const char *node, const char *reason);

/* Sends a signal (consumed) to a pid of another node, connecting first if need be. */
void mesh_send(struct mesh *m, struct signal *s);

/* Handles the offer of a link: hello is the offer (borrowed), source the address from which it came. answer
 * runs exactly once, maybe before mesh_offered returns; e is NULL unless the offer is refused. */
enum mesh_reply {
  MESH_TAKEN,  /* this node's stream to the peer is open */
  MESH_LINKED, /* the peer was up already */
  MESH_AWAITS, /* the peer is to make the connection, because this node cannot connect to it */
};
typedef void mesh_answer(void *data, const struct error *e, enum mesh_reply reply);
void mesh_offered(struct mesh *m, json_t *hello, const char *source, mesh_answer *answer, void *data);

/* The random number in this node's hello and in its answers to offers. */
uint64_t mesh_life(const struct mesh *m);

/* Passes a call (mesh/tunnel.h) to a node to which this node is linked directly, and that can be reached
 * through it.  0, or a code with *e set. */
int mesh_call(struct mesh *m, const char *node, const struct tunnel_call *call, struct error *e) MUST_CHECK;

/* Sends a further part (consumed) of the names whose first part the event `snapshot` has returned. NULL: out
 * of memory; the link is lost. */
void mesh_names(struct mesh *m, uint32_t incarnation, json_t *names);

/* A transport_greet: takes the first line of a stream that a peer has opened; mesh is the struct mesh.
 * Non-zero: the caller cuts the stream. */
int mesh_greet(void *mesh, struct incoming *in, const char *text, size_t n);

struct member {
  const char *node; /* name@host */
  npid kernel;
  uint32_t creation,
      id;              /* id 0: this node has never met it, and kernel is NPID_NONE; creation 0: not known */
  bool up;             /* the subscribers were told nodeup last: it is connected, or on demand (below) */
  bool linked;         /* it is connected */
  bool missing;        /* not up, and tried again */
  bool suspected;      /* up, and quiet for more than 1.5 heartbeats */
  const char *address; /* the address on which it listens, as the host of a URL; "" when not known */
  uint16_t port;
  const char *trouble; /* why it is not up; or "" */
  int64_t retry_ms;    /* time until it is tried again; -1: it is up, or is not tried again */
  const char *via;   /* the node through which the link to it goes; "" when it is down, or linked directly */
  const char *tags;  /* its tags (core/tags.h), as its last hello or another member has told them */
  const char *rival; /* where a second living node of the same name listens, which this node refuses; or "" */
};
/* Every node ever met (up or not) or present, in the order of meeting. */
void mesh_each(struct mesh *m, void (*fn)(void *data, const struct member *member), void *data);
/* Visits up to n of the nodes that are up, were up, or are tried, met or not: those from *at on, which is 0
 * at first.  False: these were the last.  A node that is new meanwhile is visited; one that has taken the
 * place of another that was never met may be missed. */
bool mesh_walk(struct mesh *m, size_t *at, size_t n, void (*fn)(void *data, const struct member *member),
               void *data);
/* Calls fn for each member that this node is connected to and the peer `node` is not, where both nodes
 * mesh. */
void mesh_each_unseen(struct mesh *m, const char *node, void (*fn)(void *data, const char *unseen),
                      void *data);
/* True when this node is connected to one that listens there. */
bool mesh_is_linked(const struct mesh *m, const char *address, uint16_t port);
/* Fills *out for a node; false when this node never met it, and it is not present. */
bool mesh_find(struct mesh *m, const char *node, struct member *out);
/* Fills *out for a node that this node tries, or has tried, to connect to, met or not; false when nothing is
 * kept of it. */
bool mesh_tried(struct mesh *m, const char *node, struct member *out);

/* A mesh on demand is told by its user which nodes there are.  A link to a node is made by the first
 * mesh_connect, or signal that is worth one, and closed when it is idle (mesh/ondemand.h), which is told to
 * nobody.  A node is up from the first of mesh_present and its link on.  It is down
 *
 * - when its link is lost, or cannot be made again after it was closed.  The node is then dialled as long as
 *   it is present, and up again once it is linked, or present with a newer creation;
 * - when it is told gone, and no link to it is up.
 *
 * mesh_present: the node is there, with that creation (1 to UINT32_MAX) and those tags (checked, core/tags.h;
 * NULL: none), and listens at that address (the host of a URL; an address for all of a host, as 0.0.0.0,
 * stands for the host of its name) and port (0: nowhere).  May be told again, also with other values.  A node
 * for which there is no room (LIMIT_NODES) is left out, with a line in the log. */
struct presence {
  struct nodename node;
  uint32_t creation;
  const char *address;
  uint16_t port;
  const char *tags;
};
void mesh_present(struct mesh *m, const struct presence *there);
void mesh_gone(struct mesh *m, const char *node);

/* How much the mesh keeps: nodes, and bytes that wait to be sent, to the one for which most wait and to all.
 * Takes time for each node. */
struct mesh_use {
  size_t nodes, longest, waiting;
};
struct mesh_use mesh_use(const struct mesh *m);

enum { MESH_MEASURE = 8 }; /* how many pieces of an errand a node counts as in mesh_metrics */

/* Writes the metrics of the link to each node that this one has met, of up to n nodes, from *at on, and adds
 * these nodes to *use; both are zero at first. False: these were the last. In between, no other set of
 * metrics may be opened in `out`. */
bool mesh_metrics(const struct mesh *m, size_t *at, size_t n, struct mesh_use *use, struct metrics *out);

/* A subscriber gets each nodeup (why is NULL) and nodedown from mesh_subscribe on. In its event it may
 * unsubscribe itself, but no other subscriber. The caller provides the storage. */
struct mesh_subscriber {
  void (*event)(void *data, const char *node, const char *why);
  void *data;
  struct mesh_subscriber *next, **pprev;
};
void mesh_subscribe(struct mesh *m, struct mesh_subscriber *s);
void mesh_unsubscribe(struct mesh_subscriber *s);

#endif
