/* link: the pair of streams between two nodes: ours, a POST /v1/link that we send to the peer, and theirs,
 * one that reaches our server.  Lines go in and come out; what they say is mesh's business.  I/O thread only.
 */
#ifndef AGENT_MESH_TRANSPORT_H
#define AGENT_MESH_TRANSPORT_H

#include "agent/mesh/dial.h"
#include "agent/http/server.h"

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
  int (*line)(void *data, char *text, size_t n);   /* a line of theirs; non-zero ends the link */
  void (*busy)(void *data, bool busy);             /* the queue is full; has room again */
  void (*down)(void *data, const struct error *e); /* once; the link is gone after it */
};

/* Begins our stream. NULL when memory ran out. */
struct transport *transport_open(struct agent *a, const struct dial_target *to,
                                 const struct transport_events *events, void *data);

/* A stream of theirs begins with a line that says who it is from: greet(agent, incoming, line) either adopts
 * it into a link, with transport_adopt, or returns non-zero, and it is cut off. */
typedef int transport_greet(struct agent *a, struct incoming *in, const char *text, size_t n);
void transport_incoming(struct request *r, transport_greet *greet);
void transport_adopt(struct transport *l, struct incoming *in);
bool transport_adopted(const struct transport *l);
/* The address an incoming stream comes from. */
const char *incoming_address(const struct incoming *in);

/* Queues bytes (whole lines). ERR_BUSY where more than TRANSPORT_QUEUE_MAX wait already, ERR_NOMEM. */
int transport_write(struct transport *l, const char *bytes, size_t n) MUST_CHECK;

/* Once every heartbeat: says something if nothing was said since, and ends the link after four in silence. */
void transport_tick(struct transport *l);

/* Ends it in order, without `down`: the bytes (a whole line) are the last of ours; what they still send is
 * read and dropped.  The link takes care of itself from now on. */
void transport_part(struct transport *l, const char *bytes, size_t n);

/* Ends it at once, without `down`. Accepts NULL. */
void transport_close(struct transport *l);

#endif
