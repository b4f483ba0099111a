/* transport: the pair of HTTP streams that carries a link between two nodes: ours, a POST /v1/link that this
 * node sends to the peer, and theirs, one that the peer sends to this node's server.  Lines go in and come
 * out; what they mean is the mesh's business.  I/O thread only. */
#ifndef AGENT_MESH_TRANSPORT_H
#define AGENT_MESH_TRANSPORT_H

#include "agent/mesh/dial.h"

struct transport;
struct incoming; /* a stream of theirs */

enum {
  TRANSPORT_QUEUE_HIGH = 4 << 20, /* bytes for a peer that does not read: its senders are asked to wait, until
                                half of it is left */
  TRANSPORT_QUEUE_MAX =
      1 << 30, /* it is given up: far above what may be on its way from those who were asked */
};

struct transport_events {
  void (*ready)(void *data);                       /* our stream stands */
  int (*line)(void *data, char *text, size_t n);   /* a line of theirs; non-zero ends the transport */
  void (*busy)(void *data, bool busy);             /* the queue is full; has room again */
  void (*down)(void *data, const struct error *e); /* once; the transport is gone after it */
};

/* What carries links.  carrier is a struct dialler for transport_http, below; a test brings its own. */
struct transport_class {
  /* Sends our hello (consumed) to a node; as dial_json. */
  struct dial_request *(*offer)(void *carrier, const struct dial_target *to, json_t *hello, int timeout_ms,
                                dial_done *done, void *data, struct error *e);
  void (*withdraw)(struct dial_request *offer); /* ends the offer; its done does not run; accepts NULL */

  /* Begins our stream.  NULL with *e set.  No event runs before it has returned. */
  struct transport *(*open)(void *carrier, const struct dial_target *to,
                            const struct transport_events *events, void *data, struct error *e);

  /* Queues bytes (whole lines).  ERR_BUSY where more than TRANSPORT_QUEUE_MAX wait already, ERR_NOMEM. */
  int (*write)(struct transport *l, const char *bytes, size_t n) MUST_CHECK;

  /* Once every heartbeat: sends an empty line if nothing was sent since the last, and ends the transport
   * after four heartbeats of silence. */
  void (*tick)(struct transport *l, int heartbeat_ms);

  /* Ends it in order, without `down`: the bytes (a whole line) are the last of ours; what the peer still
   * sends is read and dropped.  The transport frees itself. */
  void (*part)(struct transport *l, const char *bytes, size_t n);

  /* Ends it at once, without `down`.  Accepts NULL. */
  void (*close)(struct transport *l);

  /* Makes a stream of theirs the other half of a transport that has none. */
  void (*adopt)(struct transport *l, struct incoming *in);

  /* The address that a stream of theirs comes from; "" when unknown. */
  const char *(*source)(const struct incoming *in);
};
extern const struct transport_class transport_http;

/* A stream of theirs begins with a line that says who it is from: greet(data, incoming, line) either adopts
 * the stream into a transport or returns non-zero, and the stream is cut off. */
typedef int transport_greet(void *data, struct incoming *in, const char *text, size_t n);

/* A stream of theirs, from the address; cut(request) ends its connection, after which incoming_closed has to
 * follow.  NULL when memory ran out. */
struct incoming *incoming_new(const char *address, transport_greet *greet, void *data,
                              void (*cut)(void *request), void *request);
/* Bytes of it: 0, or non-zero when the stream is to be cut off. */
int incoming_bytes(void *incoming, const char *bytes, size_t n);
/* It has ended, and is freed. */
void incoming_closed(void *incoming);

#endif
