/* dial: the node's HTTP client: sends requests to other nodes, over TLS with the cookie's key, on the loop.
 * Host names are looked up by mesh/resolve.h.  I/O thread only. */
#ifndef AGENT_MESH_DIAL_H
#define AGENT_MESH_DIAL_H

#include "base/err.h"
#include "wire/psk.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct dialler;
struct limits;
struct holds_loop;
struct resolver;

enum { DIAL_CONNECT_MS = 4000 }; /* for resolving, TCP and TLS together */

/* psk is the key that both ends prove to have; self is this node's name, for messages; both are
 * borrowed, as is the loop. A connection is lost when the other host has acknowledged nothing for silence_ms.
 * NULL with *e set. */
struct dialler *dialler_new(uv_loop_t *loop, const struct psk *psk, const char *self, int silence_ms,
                            struct error *e);
/* The bound LIMIT_LOOKUPS (NULL: the default), and what notes what the loop does (NULL: nothing); both are
 * borrowed. */
void dialler_bound(struct dialler *d, struct limits *limits, struct holds_loop *holds);
struct resolver *dialler_resolver(const struct dialler *d);
size_t dialler_lookups(const struct dialler *d); /* host names that are being resolved */
bool dialler_idle(const struct dialler *d);      /* true when no request is under way */
/* Ends each request with an error (its done runs) and closes the handles; dialler_free after the loop has run
 * once more.  Both accept NULL. */
void dialler_finish(struct dialler *d);
void dialler_free(struct dialler *d);

struct dial_target {
  const char *node; /* the name of the node, for the Node-To header and error messages; or any other text for
                       the messages, and whatever node listens there may answer */
  const char *host; /* the host to connect to: a name, or an address (IPv6 in brackets) */
  uint16_t port;
  /* Through which node a link goes (mesh/tunnel.h), and where that listens; NULL: directly.  Host and port of
   * the node itself are then not used. */
  const struct dial_target *via;
};

/* Runs exactly once, unless the request was cancelled. After a 2xx answer e is NULL, and body its JSON
 * (borrowed, may be NULL). Otherwise e is the problem that the peer answered with, or says which stage
 * failed, and `reached` is true when the host accepted or refused the connection (for scan_next). `address`
 * is the IP address that the request went to, without brackets; "" when it is not known. */
typedef void dial_done(void *data, const struct error *e, bool reached, const char *address, json_t *body);

struct dial_request;

/* Sends one request with a JSON body (consumed, may be NULL). NULL with *e set: the request cannot be made,
 * and done never runs. */
struct dial_request *dial_json(struct dialler *d, const struct dial_target *to, const char *method,
                               const char *path, json_t *body, int timeout_ms, dial_done *done, void *data,
                               struct error *e);

/* Ends a request at once; done does not run. Accepts NULL. */
void dial_cancel(struct dial_request *r);

#endif
