/* fetch: the node's HTTP client: requests to other nodes, on the loop, over TLS with the cookie's key.  Where
 * to connect is an address and port, or a host name that libcurl resolves in a thread of its own. I/O thread
 * only. */
#ifndef AGENT_MESH_DIAL_H
#define AGENT_MESH_DIAL_H

#include "agent/state.h"

#include <jansson.h>

int dial_init(struct agent *a, struct error *e) MUST_CHECK;
void dial_finish(struct agent *a); /* what is under way ends with an error; closes its handles */
void dial_free(struct agent *a);   /* after the loop has run once more */

bool dial_idle(const struct agent *a); /* nothing under way */

struct dial_target {
  const char *node; /* who is meant: the Node-To header and the name in messages */
  const char *host; /* to connect to: a name, or an address (IPv6 in brackets) */
  uint16_t port;
};

/* Runs exactly once, unless the request was cancelled.  e: NULL after a 2xx answer, whose JSON (borrowed, may
 * be NULL) is body; else the problem the peer answered with, or the stage that failed. */
typedef void dial_done(void *data, const struct error *e, json_t *body);

struct dial_request;

/* One request with a JSON body (consumed, may be NULL). NULL, after done has run, when it cannot be made. */
struct dial_request *dial_json(struct agent *a, const struct dial_target *to, const char *method,
                               const char *path, json_t *body, int timeout_ms, dial_done *done, void *data);

/* A POST whose body is a stream: source fills out with up to max bytes and returns how many; 0 pauses it
 * until dial_resume; started runs once the connection stands and the first bytes are asked for.  Ends when
 * source returns DIAL_END, or with an error. */
#define DIAL_END ((size_t)-1)
struct dial_source {
  size_t (*read)(void *data, char *out, size_t max);
  void (*started)(void *data);
};
struct dial_request *dial_upload(struct agent *a, const struct dial_target *to, const char *path,
                                 const struct dial_source *source, dial_done *done, void *data);
void dial_resume(struct dial_request *r);

/* Ends a request; done does not run. Accepts NULL. Not from within source callbacks. */
void dial_cancel(struct dial_request *r);

#endif
