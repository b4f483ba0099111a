/* nodemsg: talks to a node from C.  The tools use this library.
 *
 * A `struct nodemsg` is a handle for one node: it is reached by its unix socket when it runs on this host,
 * else by HTTPS with the cookie.  Calls block until they are done or the deadline has passed.  Requests and
 * answers are JSON.  A call that fails returns a code (base/err.h) and, unless `e` is NULL, writes into *e
 * what failed, where, and what the user can do.  One thread at a time may use a handle.
 *
 * The library does not change how the program handles signals, SIGPIPE included. */
#ifndef NODEMSG_H
#define NODEMSG_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct nodemsg;

struct nodemsg_options {
  const char *node; /* the name of a local node, or its part before '@'; the full name of a node that does not
                       run here: the library then looks for it on its host.  NULL: $NODE_SELF, else the only
                       local node */
  const char
      *remote; /* unless NULL: look for no local node, but reach this one (name@host[:port]) over HTTPS */
  const char *cookie_file; /* for HTTPS; NULL: $NODE_COOKIE, else ~/.node.cookie */
  double timeout;          /* seconds that all calls with the handle may take together; 0: no limit */
};

/* Finds the node; connects to it only when it is on another host.  ERR_NO_AGENT: no such node runs here.
 * ERR_AMBIGUOUS: several do, and *e lists them.  For a node on another host: the stage that failed. */
int nodemsg_open(const struct nodemsg_options *options, struct nodemsg **out, struct error *e) MUST_CHECK;

/* As nodemsg_open; but when options name no node and none runs here, opens `remote` (unless NULL) over HTTPS.
 * For tools that work without a local node. */
int nodemsg_open_any(const struct nodemsg_options *options, const char *remote, struct nodemsg **out,
                     struct error *e) MUST_CHECK;
void nodemsg_close(struct nodemsg *m); /* accepts NULL */

/* Lets a stream that has begun before the deadline go on for so many seconds after it; for streams that the
 * node ends at the deadline, so that its last lines arrive. */
void nodemsg_more_time(struct nodemsg *m, double seconds);

/* Does the handle reach its node over HTTPS? */
bool nodemsg_is_remote(const struct nodemsg *m);

/* The full name of the handle's node; valid until nodemsg_close. */
const char *nodemsg_node(const struct nodemsg *m);

/* Makes one request.  method is "GET", "PUT", …; path has its escapes ("/v1/nodes"); body is borrowed and may
 * be NULL.  On success *out (unless out is NULL) is a new reference to the answer's JSON, or NULL when the
 * answer is empty.  On failure *e has the node's problem document or the stage that failed. */
int nodemsg_request(struct nodemsg *m, const char *method, const char *path, json_t *body, json_t **out,
                    struct error *e) MUST_CHECK;

/* Makes one request whose answer is a stream of JSON lines, and calls line with each value (borrowed).  When
 * line does not return 0, the stream ends, and that value is returned with *e untouched.  ERR_LOST: the
 * connection broke. */
int nodemsg_stream(struct nodemsg *m, const char *method, const char *path, json_t *body,
                   int (*line)(void *data, json_t *value), void *data, struct error *e) MUST_CHECK;

/* As nodemsg_stream, but calls text with each line as it came, whose newline is at text[n], and pause (or
 * NULL) when no further line has arrived yet. */
int nodemsg_stream_text(struct nodemsg *m, const char *method, const char *path, json_t *body,
                        int (*text)(void *data, char *text, size_t n), int (*pause)(void *data), void *data,
                        struct error *e) MUST_CHECK;

/* As nodemsg_stream, for the answers that pass on what a process prints (POST /v1/processes): the output
 * comes as it is and not in JSON; bytes is called with the next n bytes of it, and line with the other
 * events.  What bytes returns has the same meaning as what line returns.  With bytes NULL, line gets the
 * output too. */
int nodemsg_output(struct nodemsg *m, const char *method, const char *path, json_t *body,
                   int (*line)(void *data, json_t *value),
                   int (*bytes)(void *data, bool err, const char *bytes, size_t n), void *data,
                   struct error *e) MUST_CHECK;

/* Makes one POST request whose body is a stream of bytes, and calls read for the next ones: read puts up to
 * size bytes into bytes[] and returns how many, or 0 at the end.  When read returns a negative value, the
 * transfer ends, and that value is returned with *e untouched. */
int nodemsg_upload(struct nodemsg *m, const char *path, ssize_t (*read)(void *data, char *bytes, size_t size),
                   void *data, struct error *e) MUST_CHECK;

/* Ends the call that is under way on the handle, within about a second, and each later one: it returns
 * ERR_LOST.  Any thread may call this. */
void nodemsg_cancel(struct nodemsg *m);

/* Stops the node and waits for its end: until the process of a local node has ended, or the connection to a
 * node on another host has closed. */
int nodemsg_stop(struct nodemsg *m, struct error *e) MUST_CHECK;

/* Joins prefix, the escaped segment, and suffix (which may be NULL), for example "/v1/nodes/", "two@rane" and
 * "/ping".  The caller frees the string; NULL when memory ran out. */
char *nodemsg_path(const char *prefix, const char *segment, const char *suffix);

/* Stores the path of the runtime directory, which holds the sockets of the nodes that this user starts (see
 * node-toolkit(7)), in out[size]. With make, the directory is created if it does not exist. */
int nodemsg_runtime_dir(char *out, size_t size, bool make, struct error *e) MUST_CHECK;

/* The names of the nodes that run here for this user, sorted: a new JSON array of strings.  NULL: memory ran
 * out, or the runtime directory cannot be read or belongs to another user. */
json_t *nodemsg_local_nodes(void);

#endif
