/* transport: the pair of HTTP streams that carries the link between two nodes: this node's and the peer's.
 * Mostly both are on one connection (connection.h): the node that was offered the link dials, and its stream
 * is the body of the request POST /v1/link; the stream of the other node is the body of the answer.  When
 * both nodes dial at once, each stream is the body of a request, and the answers stay empty.  A transport
 * carries lines; the mesh interprets them. I/O thread only. */
#ifndef AGENT_MESH_TRANSPORT_H
#define AGENT_MESH_TRANSPORT_H

#include "agent/mesh/connection.h"
#include "agent/mesh/dial.h"
#include "agent/mesh/tunnel.h"

struct transport;
struct incoming;

enum {
  /* Bytes that wait for a peer: above HIGH the transport is busy, until half of HIGH is left. Above
   * LIMIT_PEER_QUEUE a write fails; senders that are suspended while the transport is busy do not cause
   * that. */
  TRANSPORT_QUEUE_HIGH = 4 << 20,
  /* How many queued bytes are still sent before a farewell, and how long that may take.  The rest is dropped.
   */
  TRANSPORT_FAREWELL_MAX = 16 << 20,
  TRANSPORT_FAREWELL_MS = 1000,
};

struct transport_events {
  void (*ready)(void *data);                     /* this node's stream is open: the peer has taken it */
  int (*line)(void *data, char *text, size_t n); /* a line of the peer; non-zero loses the transport */
  void (*busy)(void *data, bool busy); /* its queue is above HIGH (busy), or has drained to half of HIGH */
  /* The transport is lost; the last event: the transport then frees itself. */
  void (*down)(void *data, const struct error *e);
};

/* How the bytes of a transport move. mesh/liveness.h judges a peer by it. */
struct transport_life {
  int64_t heard_ms; /* when the last bytes came in, or the transport was opened (CLOCK_MONOTONIC) */
  uint64_t in;      /* bytes that have arrived */
  uint64_t out;     /* bytes that the peer's host has acknowledged, nearly */
  size_t waiting;   /* bytes that the peer's host has not acknowledged */
};

/* The functions of a kind of transport: transport_http below, or one of a test. No event runs before open or
 * offer has returned. */
struct transport_class {
  /* Sends a hello (consumed) to a node, and gets its answer; as dial_json. */
  struct dial_request *(*offer)(void *carrier, const struct dial_target *to, json_t *hello, int timeout_ms,
                                dial_done *done, void *data, struct error *e);
  void (*withdraw)(struct dial_request *offer); /* done does not run; accepts NULL */

  /* Opens this node's stream: on the connection of `in`, a stream of the peer, unless that carries another
   * stream of this node already; or (NULL) on a connection that it makes.  NULL with *e set; no event runs
   * then. */
  struct transport *(*open)(void *carrier, const struct dial_target *to, struct incoming *in,
                            const struct transport_events *events, void *data, struct error *e);

  /* Queues whole lines.  ERR_BUSY when more than LIMIT_PEER_QUEUE bytes wait already, ERR_NOMEM. */
  MUST_CHECK int (*write)(struct transport *t, const char *bytes, size_t n);

  /* The lane on which other threads may write to this node's stream (lanes.h); NULL: there is none now.  The
   * transport closes the lane before the stream ends. */
  struct lane *(*lane)(struct transport *t);

  /* Fills *out from the two connections.  May be called at any time. */
  void (*life)(const struct transport *t, struct transport_life *out);

  /* Ends the transport in order: the bytes (a whole line; NULL: none) are the last of this node's stream. No
   * further event runs, and lines that the peer still sends are dropped. The transport frees itself, and ends
   * both streams, within TRANSPORT_FAREWELL_MS; at once when more than TRANSPORT_FAREWELL_MAX wait. */
  void (*part)(struct transport *t, const char *bytes, size_t n);

  /* Ends the transport at once, without an event, and frees it. Accepts NULL. */
  void (*close)(struct transport *t);

  /* Makes an incoming stream the second half of a transport that has none. */
  void (*adopt)(struct transport *t, struct incoming *in);

  /* The address that an incoming stream comes from; "" when unknown. */
  const char *(*source)(const struct incoming *in);

  /* The node through which an incoming stream comes; "" when it comes directly. */
  const char *(*relay)(const struct incoming *in);

  /* Answers a call of a relay: a stream of a peer comes through it. */
  void (*answer)(void *carrier, const struct dial_target *relay, const struct tunnel_call *call);
};

/* Handles the first line of a stream of a peer, which names the node that sent it: makes a transport adopt
 * the stream and returns 0, or returns non-zero, after which the connection is closed. */
typedef int transport_greet(void *data, struct incoming *in, const char *text, size_t n);

/* What the transports of a node have in common; borrowed.  greet may be set later than the mesh is made. */
struct transport_carrier {
  struct dialler *dialler;
  struct connections *connections;
  struct tunnels *tunnels;
  struct limits *limits; /* LIMIT_PEER_QUEUE; NULL: the default */
  transport_greet *greet;
  void *data; /* for greet */
};
extern const struct transport_class transport_http; /* its carrier is a struct transport_carrier */

/* Serves the connection of a peer on a socket that was accepted, and owns the socket from now on.  `address`
 * is where it comes from. */
void transport_accept(struct transport_carrier *carrier, int fd, const char *address);

#endif
