/* http: the node's HTTP server: one plain on its unix socket, one over TLS on its port, one table of routes
 * behind both (routes.h), one way to answer.
 *
 * A handler is called once for each request, with the body read and parsed, and must answer it exactly once:
 * at once or later, with respond_json, respond_error or respond_stream.  Until it does, the request stays
 * valid, even when its client is gone.  I/O thread only. */
#ifndef AGENT_HTTP_SERVER_H
#define AGENT_HTTP_SERVER_H

#include "agent/state.h"
#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
  HTTP_BODY_MAX = 16 << 20,    /* a request's body; beyond: 413 */
  HTTP_DISCARD_MAX = 64 << 20, /* how much of a refused body is read before the connection is cut */
  HTTP_CONNECTIONS_MAX = 4096, /* on each of the two servers; more wait in the kernel's backlog */
  HTTP_IDLE_TIMEOUT_S = 60,    /* a connection on which nothing happens */
  HTTP_STREAM_MAX = 512 << 20, /* a stream with more pending is cut: its writers do not wait.  More than those
                                  who do can have on its way before they are told to (vm_lack) */
  HTTP_STREAM_HIGH = 1 << 20,  /* a stream with more than this pending is full */
};

struct request;
struct route;

int http_init(struct agent *a, int unix_fd, int tcp_fd, struct error *e) MUST_CHECK;
void http_quiesce(struct agent *a);     /* no new connections */
void http_end_streams(struct agent *a); /* those that would go on for ever */
bool http_idle(const struct agent *a);  /* no request under way */
void http_finish(struct agent *a); /* closes its handles; the loop has to run once more before http_free */
void http_free(struct agent *a);

/* What a handler reads. */
struct agent *request_agent(const struct request *r);
const char *request_segment(const struct request *r); /* the NAME or PID of its path, unescaped; NULL: none */
const char *request_query(const struct request *r, const char *key);
const char *request_header(const struct request *r, const char *key);
json_t *request_body(const struct request *r); /* borrowed; NULL: there was none */
bool request_peer(const struct request *r,
                  char out[64]); /* the address it came from; false on the unix socket */

/* Nobody reads from the connection of a request that is not answered yet, so nobody sees its client go: gone
 * runs then, once at most, until the request is answered.  0 or ERR_NOMEM. */
int request_on_disconnect(struct request *r, void (*gone)(void *data), void *data) MUST_CHECK;

/* The answers. body is consumed; NULL stands for memory that ran out. */
void respond_json(struct request *r, unsigned status, json_t *body);
void respond_text(struct request *r, const char *type, char *text, size_t n); /* text (heap) is consumed */
void respond_error(struct request *r, const struct error *e);
void respond_code(struct request *r, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* An answer of JSON lines that goes on until stream_end.  closed(data) runs once: after stream_end, or when
 * the client is gone (*gone*); the stream is then no more. drained runs when a full stream has emptied by
 * half. */
struct stream;
struct stream_events {
  void (*closed)(void *data, bool gone);
  void (*drained)(void *data);
};
/* NULL when memory ran out: the request has then been answered with that. */
struct stream *respond_stream(struct request *r, const struct stream_events *events, void *data);
void stream_line(struct stream *s, json_t *line);            /* consumed */
void stream_text(struct stream *s, const struct buf *lines); /* whole lines of JSON text */
bool stream_full(const struct stream *s);
void stream_end(struct stream *s);

/* A request whose body is taken as it comes: set by the handler of a route marked ROUTE_UPLOAD, which is
 * called before the body.  data returns non-zero to cut the connection off; closed runs once, whatever
 * happened. */
struct upload_events {
  int (*data)(void *data, const char *bytes, size_t n);
  void (*done)(void *data); /* all has come: answers the request; NULL: an empty object does */
  void (*closed)(void *data);
};
void request_upload(struct request *r, const struct upload_events *events, void *data);
void request_hold(struct request *r);    /* from `data`: no more of it until request_release */
void request_release(struct request *r); /* does nothing when it is not held */
void request_cut(struct request *r);     /* ends the connection of an upload or a stream; closed follows */

#endif
