/* link: the pair of streams between two nodes: ours, a POST /v1/link that we send to the peer, and theirs,
 * one that reaches our server.  Lines go in and come out; what they say is mesh's business.  I/O thread only.
 */
#ifndef AGENT_LINK_H
#define AGENT_LINK_H

#include "agent/fetch.h"
#include "agent/http.h"

struct link;
struct incoming; /* a stream of theirs */

enum {
  LINK_QUEUE_HIGH = 4 << 20, /* bytes for a peer that does not read: its senders are asked to wait, until half
                                of it is left */
  LINK_QUEUE_MAX = 1 << 30,  /* it is given up: far above what may be on its way from those who were asked */
};

struct link_events {
  void (*ready)(void *data);                       /* our stream stands */
  int (*line)(void *data, char *text, size_t n);   /* a line of theirs; non-zero ends the link */
  void (*busy)(void *data, bool busy);             /* the queue is full; has room again */
  void (*down)(void *data, const struct error *e); /* once; the link is gone after it */
};

/* Begins our stream. NULL when memory ran out. */
struct link *link_open(struct agent *a, const struct fetch_target *to, const struct link_events *events,
                       void *data);

/* A stream of theirs begins with a line that says who it is from: greet(agent, incoming, line) either adopts
 * it into a link, with link_adopt, or returns non-zero, and it is cut off. */
typedef int link_greet(struct agent *a, struct incoming *in, const char *text, size_t n);
void link_incoming(struct request *r, link_greet *greet);
void link_adopt(struct link *l, struct incoming *in);
bool link_adopted(const struct link *l);
/* The address an incoming stream comes from. */
const char *incoming_address(const struct incoming *in);

/* Queues bytes (whole lines). ERR_BUSY where more than LINK_QUEUE_MAX wait already, ERR_NOMEM. */
int link_write(struct link *l, const char *bytes, size_t n) MUST_CHECK;

/* Once every heartbeat: says something if nothing was said since, and ends the link after four in silence. */
void link_tick(struct link *l);

/* Ends it in order, without `down`: the bytes (a whole line) are the last of ours; what they still send is
 * read and dropped.  The link takes care of itself from now on. */
void link_part(struct link *l, const char *bytes, size_t n);

/* Ends it at once, without `down`. Accepts NULL. */
void link_close(struct link *l);

#endif
