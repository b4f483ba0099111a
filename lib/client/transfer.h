/* transfer: one blocking HTTP exchange (wire/exchange.h) with a handle's node.  Internal to nodemsg: one
 * owner, one thread. */
#ifndef CLIENT_TRANSFER_H
#define CLIENT_TRANSFER_H

#include "base/err.h"
#include "wire/exchange.h"
#include "wire/psk.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct nodemsg {
  CURL *easy;            /* used for all exchanges, as it keeps the connection */
  char *node;            /* full name */
  char *word;            /* of a remote node: the name with its hint of a port, as it was given; else NULL */
  char *base;            /* the URL before the path: "http://localhost", "https://rane:4370" */
  char *socket;          /* a local node's socket, NULL for a remote one */
  struct psk psk;        /* a remote one's key */
  bool reached;          /* the host has reacted to the last transfer (exchange_reached) */
  int64_t deadline;      /* clock_ns, or 0: none */
  long more_ms;          /* how much later the deadline of a stream is that has begun */
  atomic_bool cancelled; /* nodemsg_cancel */
};

/* Runs the request.  The caller sets its method, path, body, read, line and data; this function sets the rest
 * from the handle. *out (unless NULL) is the answer's JSON.  The errors are those of nodemsg_request,
 * nodemsg_stream and nodemsg_upload. */
int transfer(struct nodemsg *m, const struct exchange_request *request, json_t **out,
             struct error *e) MUST_CHECK;

/* Sets all of *r that belongs to the handle; `left` are the nanoseconds that the exchange may take,
 * INT64_MAX: no limit. */
void transfer_complete(const struct nodemsg *m, int64_t left, struct exchange_request *r);

/* Nanoseconds that are left until the deadline: INT64_MAX without one, 0 when it has passed. */
int64_t transfer_left(const struct nodemsg *m);

#endif
