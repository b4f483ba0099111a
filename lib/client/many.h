/* many: exchanges with many nodes at once, on one thread.
 *
 * A call is one exchange: a request and its answer, as nodemsg.h has them, that runs while many_wait is
 * called. The node is that of a handle (client/nodemsg.h), which many calls can share, since each call has a
 * connection of its own; the deadline of the handle is not used.  Memory of a call: its body, and at most one
 * line of the answer.
 *
 *   many_start, many_find      starts a call; an error means that `done` is never called
 *   many_wait                  runs the calls, and calls `line`, `read` and `done`
 *   many_cancel                ends a call; `done` is then not called
 *
 * `line`, `read` and `done` may start and cancel calls.  A call is freed when its `done` returns.  One owner,
 * one thread. */
#ifndef CLIENT_MANY_H
#define CLIENT_MANY_H

#include "client/nodemsg.h"

#include <curl/curl.h>
#include <stdint.h>

struct many;
struct many_call;

struct many_request {
  const char *method, *path;              /* borrowed by many_start, as is body */
  const json_t *body;                     /* or NULL */
  int (*line)(void *data, json_t *value); /* as in nodemsg_stream, or NULL */
  int (*bytes)(void *data, bool is_stderr, const char *bytes, size_t n); /* as in nodemsg_output, or NULL */
  /* As in nodemsg_upload, or NULL; it may also return MANY_PAUSE, until many_resume. */
  ssize_t (*read)(void *data, char *bytes, size_t size);
  const char *type; /* Content-Type of what read gives; NULL: application/octet-stream */
  /* The end.  rc is 0, or the code of *e, or what line, bytes or read returned.  answer is borrowed, and may
   * be NULL. */
  void (*done)(void *data, int rc, json_t *answer, const struct error *e);
  void *data;
  int64_t deadline; /* clock_ns; 0: none */
  long more_ms;     /* once an answer of lines has begun, the deadline is later by this much */
};

#define MANY_PAUSE ((ssize_t)CURL_READFUNC_PAUSE)

/* NULL: memory ran out. */
struct many *many_new(void);

/* Cancels what runs, and closes the connections.  Accepts NULL. */
void many_free(struct many *p);

/* Starts a call to the node of m, which must stay open until the call has ended. */
int many_start(struct many *p, struct nodemsg *m, const struct many_request *request, struct many_call **out,
               struct error *e) MUST_CHECK;

/* Makes a handle for a node on another host without connecting to it, with the cookie that the options name.
 */
int many_remote(const struct nodemsg_options *options, const char *node, struct nodemsg **out,
                struct error *e) MUST_CHECK;

/* Starts to look for the node of such a handle on its host (wire/scan.h).  Calls can be started on the handle
 * after `done` was called with 0.  Of the request, only done, data and deadline are used. */
int many_find(struct many *p, struct nodemsg *m, const struct many_request *request, struct many_call **out,
              struct error *e) MUST_CHECK;

/* Lets a call whose read has returned MANY_PAUSE call it again. */
void many_resume(struct many_call *call);

void many_cancel(struct many_call *call);

/* Waits until a call or one of the descriptors fds[n] is ready, at most ms milliseconds; then runs the calls.
 * The revents of fds are set. */
int many_wait(struct many *p, struct curl_waitfd *fds, unsigned n, int ms, struct error *e) MUST_CHECK;

#endif
