/* transfer: one HTTP exchange with a node, over libcurl.  Inside of nodemsg: one owner, one thread. */
#ifndef CLIENT_TRANSFER_H
#define CLIENT_TRANSFER_H

#include "base/err.h"
#include "wire/psk.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>

struct nodemsg {
  CURL *easy;
  struct curl_slist *headers;
  char *node;     /* full name, for messages */
  char *base;     /* the URL before the path: "http://localhost", "https://rane:4370" */
  char *socket;   /* a local node's socket, NULL for a remote one */
  struct psk psk; /* a remote one's */
  struct psk_session session;
  int64_t deadline; /* clock_ns, or 0 */
};

/* Sets up what all exchanges share: m->easy and m->headers, from node and socket.  transfer_finish undoes it.
 */
int transfer_init(struct nodemsg *m) MUST_CHECK;
void transfer_finish(struct nodemsg *m);

struct exchange {
  const char *method;
  const char *path;
  json_t *body;                                          /* borrowed; may be NULL */
  ssize_t (*read)(void *data, char *bytes, size_t size); /* the body's next bytes, instead; or NULL */
  int (*line)(void *data, json_t *value);                /* for a stream; NULL: the answer is one document */
  void *data;
};

/* Runs it. For one document *out (unless NULL) is its JSON, NULL when there was none.  The errors are those
 * of nodemsg_request, nodemsg_stream and nodemsg_upload. */
int transfer(struct nodemsg *m, const struct exchange *x, json_t **out, struct error *e) MUST_CHECK;

/* Nanoseconds that are left, INT64_MAX without a deadline, 0 when it has passed. */
int64_t transfer_left(const struct nodemsg *m);

#endif
