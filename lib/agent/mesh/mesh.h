/* mesh: the membership of this node: which nodes it is connected to, how a connection comes to be, and what
 * signals go over it.  Nothing outside knows how a member is found.
 *
 * Connecting: this node offers a link (PUT /v1/link with its hello: who it is and where it listens); the peer
 * opens its stream to this node; this node opens its stream to the peer.  Each stream begins with a hello
 * line and the global names of its node; the peer is up once both have come.  Both ends may offer at once:
 * each opens only one stream.
 *
 * The mesh knows its users by a table of events and what carries its bytes by a table of functions
 * (transport.h), both given at mesh_new; it calls neither a vm nor HTTP by name.  I/O thread only. */
#ifndef AGENT_MESH_H
#define AGENT_MESH_H

#include "base/log.h"
#include "core/nodename.h"
#include "core/npid.h"
#include "core/signal.h"

#include <jansson.h>
#include <uv.h>

enum {
  MESH_CONNECT_TIMEOUT_MS = 6000, /* for all ports of a peer together */
  MESH_RETRY_MS = 1000, /* a signal to a peer that could not be reached less than this ago fails without
                           another attempt */
  MESH_PEERS_MAX = 4096,
};

#define MESH_STOPPED "stopped" /* the farewell of a node that stops */

struct mesh;
struct incoming;        /* a stream that a peer has opened to this node (transport.h) */
struct transport_class; /* what carries links (transport.h) */

/* What the mesh tells its user.  No event may call mesh_finish or mesh_free; all else is allowed. */
struct mesh_events {
  /* A link begins: returns the global names of this node's processes, the first thing that the peer is told;
   * NULL: out of memory.  Signals to the peer go out behind it from now on, until `down`. */
  json_t *(*snapshot)(void *data, uint32_t incarnation);
  /* What the peer has said of its own names; runs before the peer is up.  False: there is more to come
   * (mesh_names), and the peer is not up before that. */
  bool (*synced)(void *data, uint32_t incarnation, const json_t *names);
  /* A signal (the callee's) that came from the peer of that incarnation; its epoch is that of the connection.
   */
  void (*signal)(void *data, uint32_t incarnation, struct signal *s);
  /* A signal (the callee's) that cannot reach its receiver: its sender is to be answered. */
  void (*undeliverable)(void *data, struct signal *s, int code, const char *reason);
  /* The queue to that node is full, or has room again. */
  void (*busy)(void *data, uint32_t incarnation, bool busy);
  /* Whether the peer is suspected has changed: it was quiet for 1.5 heartbeats, or is heard again.  A peer
   * that goes down is told by `down` alone.  May be NULL, as may the next two. */
  void (*suspected)(void *data, uint32_t incarnation, bool suspected);
  /* Puts what all peers are to be told into the beat (borrowed), which goes out every heartbeat.  "n" and
   * "members" are the mesh's. */
  void (*beat)(void *data, json_t *fields);
  /* The beat (borrowed) of a peer that is up. */
  void (*peer_beat)(void *data, uint32_t incarnation, const json_t *fields);
  /* The connection of that number to a peer that signals may have gone to or come from is lost. */
  void (*down)(void *data, uint32_t incarnation, uint32_t epoch, const char *reason);
};

/* Copied; what it points at is borrowed. */
struct mesh_config {
  uv_loop_t *loop;
  struct nodetab *nodes;
  const struct log *log;
  const char *self; /* name@host */
  uint32_t creation;
  const char *address; /* where this node listens */
  uint16_t port;
  bool mesh; /* members of a peer are connected to as well */
  int heartbeat_ms;
  int64_t rejoin_ms;      /* for how long a node that was lost is tried again; 0: never */
  uint64_t seed;          /* of the random numbers; 0: the system's */
  int connect_timeout_ms; /* 0: MESH_CONNECT_TIMEOUT_MS */
  const struct transport_class *transport;
  void *carrier; /* for its open and offer */
};

/* 0 or ERR_NOMEM.  data goes to the events. */
int mesh_new(const struct mesh_config *config, const struct mesh_events *events, void *data,
             struct mesh **out) MUST_CHECK;
void mesh_stop(struct mesh *m);   /* parts from all peers, refuses new ones */
void mesh_finish(struct mesh *m); /* closes its handles; accepts NULL */
void mesh_free(struct mesh *m);   /* after the loop has run once more; accepts NULL */

/* Connects to a node.  done runs exactly once, maybe before mesh_connect returns: e is NULL when the node is
 * up, and kernel is its kernel's pid. */
typedef void mesh_done(void *data, const struct error *e, npid kernel);
void mesh_connect(struct mesh *m, const struct nodename *to, mesh_done *done, void *data);

/* Connects to a node, and tries again for the config's rejoin_ms while it is not reached.  A failure is
 * logged. */
void mesh_join(struct mesh *m, const struct nodename *to);

/* Parts from a node; false when it is not up. */
bool mesh_disconnect(struct mesh *m, const char *node, const char *reason);

/* Sends a signal (consumed) to a pid of another node, connecting first if need be. */
void mesh_send(struct mesh *m, struct signal *s);

/* A peer offers a link: hello is the offer (borrowed), source the address it came from.  answer runs exactly
 * once, maybe before mesh_offered returns: e is NULL when this node's stream to the peer stands, or (up) when
 * the peer was up already. */
typedef void mesh_answer(void *data, const struct error *e, bool up);
void mesh_offered(struct mesh *m, json_t *hello, const char *source, mesh_answer *answer, void *data);

/* Sends more of the names whose first part `snapshot` has returned (consumed; NULL: out of memory, which
 * loses the link). */
void mesh_names(struct mesh *m, uint32_t incarnation, json_t *names);

/* The first line of a stream that a peer has opened (a transport_greet; mesh is the struct mesh).  Non-zero:
 * the stream is to be cut. */
int mesh_greet(void *mesh, struct incoming *in, const char *text, size_t n);

struct member {
  const char *node; /* name@host */
  npid kernel;
  uint32_t creation, id; /* creation 0: never met, and has no id and no kernel */
  bool up;
  bool suspected;      /* up, and quiet for more than 1.5 heartbeats */
  const char *address; /* where it listens, as the host of a URL; "" when not known */
  uint16_t port;
  const char *trouble; /* not up: why; or "" */
  int64_t retry_ms;    /* not up: until it is tried again; -1: it is not */
  const char *rival;   /* where another living node of the same name listens, which is kept out; or "" */
};
/* Every node ever met (up or not), in the order of meeting. */
void mesh_each(struct mesh *m, void (*fn)(void *data, const struct member *member), void *data);
/* Every node that is not up and is being tried again, met or not. */
void mesh_each_missing(struct mesh *m, void (*fn)(void *data, const struct member *member), void *data);
/* Calls fn for each member that this node is connected to and the given peer is not, where both mesh. */
void mesh_each_unseen(struct mesh *m, const char *node, void (*fn)(void *data, const char *unseen),
                      void *data);
/* false when it was never met. */
bool mesh_find(struct mesh *m, const char *node, struct member *out);

/* A subscriber is told of each nodeup (why is NULL) and nodedown from now on.  It may unsubscribe itself in
 * its event, no other.  Storage of the caller. */
struct mesh_subscriber {
  void (*event)(void *data, const char *node, const char *why);
  void *data;
  struct mesh_subscriber *next, **pprev;
};
void mesh_subscribe(struct mesh *m, struct mesh_subscriber *s);
void mesh_unsubscribe(struct mesh_subscriber *s);
struct mesh_subscriber *mesh_subscribers(struct mesh *m); /* the first of the list; NULL when m is */

#endif
