/* tunnel: links between two nodes that cannot connect to each other, through a third node, their relay, that
 * both connect to.  The two nodes do TLS with each other inside the tunnel, as over a TCP connection of their
 * own; the relay passes bytes that it cannot read.
 *
 *      one                            relay                          two
 *       │ CONNECT, Node-To: two         │                             │
 *       ├──────────────────────────────▶│ {"call": …} on the link     │
 *       │                               ├────────────────────────────▶│
 *       │                               │ CONNECT, Node-To: one,      │
 *       │                               │   Node-Call: the call       │
 *       │                  200          │◀────────────────────────────┤
 *       │◀──────────────────────────────┤ 200                         │
 *       │                               ├────────────────────────────▶│
 *       │◀═════════════ TLS and POST /v1/link between one and two ═══▶│
 *
 * Each end of a tunnel is a pair of sockets: one of them belongs to the connection of the link, and what goes
 * through the other is passed to and from the connection to the relay.  Whoever does not read makes the other
 * end wait: no more than TUNNEL_HIGH bytes and a record wait in a node for each direction, besides what
 * sockets hold.  I/O thread only. */
#ifndef AGENT_MESH_TUNNEL_H
#define AGENT_MESH_TUNNEL_H

#include "agent/mesh/connection.h"
#include "agent/mesh/dial.h"
#include "core/limits.h"

#include <uv.h>

struct holds_loop;

enum {
  TUNNEL_HIGH = 256 << 10,     /* bytes that wait for one end: from here on the other end is not read */
  TUNNEL_IDLE_MS = 10 * 60000, /* a relay ends a tunnel through which nothing has gone for so long */
};

struct tunnels; /* of a node: those that it relays, and its ends of others */
struct tunnel;  /* an end of this node */

/* What a relay tells the node to which a tunnel is asked for. */
struct tunnel_call {
  uint64_t id;         /* of the call; not 0 */
  const char *from;    /* the node that asks */
  const char *address; /* the IP address from which it does */
};

struct tunnels_config {
  uv_loop_t *loop;
  struct connections *connections;
  const char *self;         /* this node's name; borrowed, as the next three */
  struct limits *limits;    /* LIMIT_TUNNELS; NULL: the default */
  struct holds_loop *holds; /* or NULL */
  const struct log *log;
  /* Passes a call to a node.  A code, with *e set: it cannot be called. */
  int (*call)(void *data, const char *node, const struct tunnel_call *call, struct error *e);
  void *data;
  int idle_ms; /* 0: TUNNEL_IDLE_MS; for tests */
};

/* NULL when memory ran out. */
struct tunnels *tunnels_new(const struct tunnels_config *config);
size_t tunnels_relayed(const struct tunnels *ts); /* tunnels that this node relays now */
uint64_t tunnels_bytes(const struct tunnels *ts); /* that it has passed on, since the start */
/* To be called behind connections_finish; the loop runs once more before tunnels_free.  Both accept NULL. */
void tunnels_finish(struct tunnels *ts);
void tunnels_free(struct tunnels *ts);

/* Asks a relay for a tunnel to a node.  *fd becomes the socket of its end, the caller's, which may be written
 * to at once.  `ended` runs once, never within tunnel_dial, unless tunnel_forget is called first; `opened` is
 * false when the relay or the node has refused: `what` then says so, as that of a connection does.  NULL with
 * *e set. */
typedef void tunnel_ended(void *data, bool opened, int code, const char *what);
struct tunnel *tunnel_dial(struct tunnels *ts, const struct dial_target *relay, const char *node,
                           tunnel_ended *ended, void *data, int *fd, struct error *e);

/* `ended` does not run.  The tunnel ends when its socket is closed.  Accepts NULL. */
void tunnel_forget(struct tunnel *t);

/* Answers a call of a relay.  `open` runs once the tunnel is open, and gets the socket of its end; it does
 * not run when the tunnel fails, which is logged.  `call` is copied. */
typedef void tunnel_open(void *data, int fd, const struct tunnel_call *call, const char *relay);
void tunnel_answer(struct tunnels *ts, const struct dial_target *relay, const struct tunnel_call *call,
                   tunnel_open *open, void *data);

/* Relays: takes over a connection whose request is CONNECT (connection_events.asked), from `address`. A code
 * with *e set: the request is refused, and the connection stays its owner's. */
int tunnel_relay(struct tunnels *ts, struct connection *c, const char *address,
                 const struct connection_ask *ask, struct error *e) MUST_CHECK;

#endif
