/* connection: one TLS connection between two nodes, which carries two streams of bytes at once: the body of a
 * request POST /v1/link up, from the node that has dialled, and the body of its answer down.  Both bodies are
 * chunked (wire/chunked.h).  TLS is OpenSSL, and both ends have proved the cookie and the version of the link
 * (wire/psk.h) before a byte of a stream moves.
 *
 * A node that relays links (mesh/tunnel.h) is asked with CONNECT (RFC 9110, 9.3.6) instead; the two streams
 * are then the bytes behind the heads of the request and of its answer.
 *
 * What is written in one turn of the loop goes out before the loop sleeps, in chunks that are a TLS record
 * and a write each.  I/O thread only, but other threads write by the lane (lanes.h). */
#ifndef AGENT_MESH_CONNECTION_H
#define AGENT_MESH_CONNECTION_H

#include "base/err.h"
#include "wire/psk.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct holds_loop;
struct lane;
struct lanes;

struct connection;
struct connection_ask;
struct connections; /* what the connections of a node have in common */

enum {
  CONNECTION_PATIENCE_MS = 4000, /* until a connection is opened, and an accepted one is settled */
  /* A chunk with its line and line end fits into one TLS record. */
  CONNECTION_RECORD = 16384,
  CONNECTION_CHUNK = CONNECTION_RECORD - 16,
  CONNECTION_TURN = 1 << 20,        /* bytes that a connection writes in a turn of the loop */
  CONNECTION_KEY_RECORDS = 1 << 23, /* records that are sent with one key (RFC 8446, 5.5) */
};

struct connections_config {
  uv_loop_t *loop;
  const struct psk_set *psks; /* borrowed, and may change */
  const char *self;           /* this node's name; borrowed */
  struct holds_loop *holds;   /* what the loop does (holds_note); or NULL */
  struct lanes *lanes;        /* by which other threads write; or NULL: none does */
  int silence_ms;             /* a host that has acknowledged nothing for so long is lost */
  /* The handshake of an accepted socket is done; an accepted socket is about to be closed.  May be NULL. */
  void (*proved)(void *data, int fd);
  void (*closing)(void *data, int fd);
  void *data;
  int patience_ms;      /* 0: CONNECTION_PATIENCE_MS; for tests */
  unsigned key_records; /* 0: CONNECTION_KEY_RECORDS; for tests */
};

/* NULL with *e set. */
struct connections *connections_new(const struct connections_config *config, struct error *e);
/* True when no connection is ending (connection_end). */
bool connections_idle(const struct connections *cs);
/* Closes the connections and handles; the loop runs once more before connections_free.  Both accept NULL. */
void connections_finish(struct connections *cs);
void connections_free(struct connections *cs);

/* What CONNECT asks for, in its fields Node-To, Node-From, Node-Via and Node-Call. */
struct connection_ask {
  const char *to, *from, *relay; /* names of nodes: `from` asks `relay` for a tunnel to `to` */
  uint64_t call;                 /* the call of the relay that is answered; 0: none */
};

/* No event runs before connection_dial or connection_accept has returned, nor within connection_write, and
 * none but `freed` after connection_close. */
struct connection_events {
  /* The request of an accepted connection has come; a dialled one was answered that the link is served there.
   */
  void (*opened)(void *data);
  /* Bytes of the peer's stream.  A code ends the connection, and `lost` has it, unless the event has closed
   * the connection itself. */
  int (*bytes)(void *data, const char *bytes, size_t n);
  void (*drained)(void *data); /* bytes have left the queue */
  /* The connection has failed, or the peer has ended its stream; it is closed after this.  `what` says so
   * without a name: "connection reset (lost)". */
  void (*lost)(void *data, int code, const char *what);
  void (*freed)(void *data); /* once, the last event: the connection no longer exists */
  /* The request of an accepted connection is CONNECT: non-zero with *e set refuses it, else the callee
   * answers it with connection_admit or connection_refuse.  `ask` is borrowed, and its strings as well. NULL:
   * the request is refused. */
  int (*asked)(void *data, const struct connection_ask *ask, struct error *e);
};

/* Connects to an IP address (IPv6 in brackets) and asks for a link to `node`, or, unless `ask` is NULL, for
 * a tunnel; `ask` is copied.  NULL with *e set: no event runs then. */
struct connection *connection_dial(struct connections *cs, const char *node, const char *address,
                                   uint16_t port, const struct connection_ask *ask,
                                   const struct connection_events *events, void *data, struct error *e);

/* Asks for a link to `node` over a connected socket (of a tunnel), and owns the socket from now on.  NULL
 * when memory or descriptors ran out: the socket is closed, and no event runs. */
struct connection *connection_over(struct connections *cs, int fd, const char *node,
                                   const struct connection_events *events, void *data);

/* Serves a link on a socket that was accepted, and owns the socket from now on; `counted`: proved and closing
 * of the config run for the socket.  NULL as above. */
struct connection *connection_accept(struct connections *cs, int fd, bool counted,
                                     const struct connection_events *events, void *data);

/* Gives the connection to another owner: these events run from now on. */
void connection_hand_over(struct connection *c, const struct connection_events *events, void *data);

/* Answers the request CONNECT of an accepted connection: the streams are open, or *e says why not, and the
 * connection ends. */
MUST_CHECK int connection_admit(struct connection *c);
void connection_refuse(struct connection *c, const struct error *e);

/* Reads no more from the peer, or reads again. */
void connection_hold(struct connection *c, bool hold);

/* Closes an accepted socket that cannot be served. */
void connections_discard(const struct connections *cs, int fd);

/* Queues bytes of this node's stream.  ERR_NOMEM. */
MUST_CHECK int connection_write(struct connection *c, const void *bytes, size_t n);

/* The lane of an open connection, by which other threads may write to it (lanes.h); NULL: it has none. */
struct lane *connection_lane(struct connection *c);

/* Ends this node's stream behind what is queued, and closes the connection when the peer has closed it, or
 * after ms.  The bytes of the peer are read and dropped: only `lost` and `freed` run. */
void connection_end(struct connection *c, int ms);

/* The connection, which was accepted, is used: it is no longer closed after CONNECTION_PATIENCE_MS. */
void connection_settle(struct connection *c);

/* Resets the connection at once, also in an event of its own.  Accepts NULL. */
void connection_close(struct connection *c);

/* How many bytes of this node's stream the kernel has not taken. */
size_t connection_queued(const struct connection *c);

struct connection_life {
  int64_t heard_ms; /* when the last bytes came in (CLOCK_MONOTONIC); 0: none yet */
  uint64_t in;      /* bytes that have come in, with what TLS adds */
  size_t queued;    /* connection_queued */
  size_t unacked;   /* bytes, with what TLS adds, that the peer's host has not acknowledged */
  uint64_t direct;  /* bytes of this node's stream that were written by the lane */
};
/* Asks the kernel: not for each message. */
void connection_life(const struct connection *c, struct connection_life *out);

#endif
