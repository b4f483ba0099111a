/* nodemsg: talk to a node from C: the messaging library that the tools share.
 *
 * A `struct nodemsg` is a way to one node: the unix socket of a local one, or HTTPS with the cookie to one on
 * another host.  Calls block, up to the deadline; JSON goes in and comes out; failures come as an error code
 * (base/err.h) and a sentence that says what, where and how to mend: a `struct error *` is always filled when
 * the return is not 0, and may be NULL.  One thread at a time may use a handle.
 *
 * SIGPIPE and all other signals are left as the program has them. */
#ifndef NODEMSG_H
#define NODEMSG_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct nodemsg;

struct nodemsg_options {
  const char *node;   /* which node: the name of a local one, or its part before '@'; a full name that is not
                         running here is looked for on its host; NULL: $NODE_SELF, else the only local one */
  const char *remote; /* not a local node: reach this one (name@host[:port]) over HTTPS */
  const char *cookie_file; /* for HTTPS; NULL: ~/.node.cookie */
  double timeout;          /* seconds, the deadline of everything done with the handle; 0: none */
};

/* Finds the node; does not yet connect to a local one.  ERR_NO_AGENT, ERR_AMBIGUOUS (the error lists them),
 * for a remote the stage that failed. */
int nodemsg_open(const struct nodemsg_options *options, struct nodemsg **out, struct error *e) MUST_CHECK;

/* A local node; but where none was asked for and none is running, straight to `remote` (unless NULL): what
 * the tools do that need no agent. */
int nodemsg_open_any(const struct nodemsg_options *options, const char *remote, struct nodemsg **out,
                     struct error *e) MUST_CHECK;
void nodemsg_close(struct nodemsg *m); /* accepts NULL */

/* Is the handle straight to a remote node? */
bool nodemsg_is_remote(const struct nodemsg *m);

/* The full name of the node the handle leads to. */
const char *nodemsg_node(const struct nodemsg *m);

/* One request.  method "GET", "PUT", …; path with its escapes ("/v1/nodes"); body may be NULL.  On success
 * *out (unless NULL) is a new reference to the answer's JSON (NULL when there is none).  On failure the
 * node's problem document, or the stage at which the transfer failed, is in *e. */
int nodemsg_request(struct nodemsg *m, const char *method, const char *path, json_t *body, json_t **out,
                    struct error *e) MUST_CHECK;

/* One request whose answer is a stream of JSON lines: calls line (value borrowed) for each; a non-zero return
 * ends the stream and is returned, with *e untouched.  ERR_LOST when it breaks off. */
int nodemsg_stream(struct nodemsg *m, const char *method, const char *path, json_t *body,
                   int (*line)(void *data, json_t *value), void *data, struct error *e) MUST_CHECK;

/* One POST whose body is a stream of bytes: calls read for the next ones, which says how many it has put into
 * bytes[size], 0 at the end, or a negative value, which ends the transfer and is returned, with *e
 * untouched. */
int nodemsg_upload(struct nodemsg *m, const char *path, ssize_t (*read)(void *data, char *bytes, size_t size),
                   void *data, struct error *e) MUST_CHECK;

/* Stops the node, and returns once it is gone: the process of a local one has ended, the connection to a
 * remote one has closed. */
int nodemsg_stop(struct nodemsg *m, struct error *e) MUST_CHECK;

/* prefix, then the segment with its escapes, then suffix (which may be NULL): "/v1/nodes/" + "two@rane" +
 * "/ping".  A heap string, or NULL when memory ran out. */
char *nodemsg_path(const char *prefix, const char *segment, const char *suffix);

/* The runtime directory that holds the local nodes' sockets (see node-toolkit(7)): fills out[size]. */
int nodemsg_runtime_dir(char *out, size_t size, bool make, struct error *e) MUST_CHECK;

/* The names of the nodes that run here for this user, sorted: a JSON array of strings. NULL: out of memory,
 * or the runtime directory is not to be trusted. */
json_t *nodemsg_local_nodes(void);

#endif
