/* server: a node's HTTP server: plain HTTP on its unix socket, TLS with the cookie's key on its port, one
 * table of routes behind both.
 *
 * A handler is called once for each request, with the body read and parsed, and answers it exactly once, at
 * once or later, with respond_json, respond_text, respond_error, respond_code or respond_stream.  Until it
 * does, the request stays valid, even when its client is gone.  I/O thread only. */
#ifndef AGENT_HTTP_SERVER_H
#define AGENT_HTTP_SERVER_H

#include "agent/http/jobs.h"
#include "agent/http/refusals.h"
#include "agent/state.h"
#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
  /* Bytes of a body for a route that is not marked ROUTE_LARGE; a longer one is refused with 413, as is one
   * of more bytes than LIMIT_BODY, which bounds the others, and one message. All bodies together have at most
   * LIMIT_BODIES bytes, or LIMIT_BODY where that is more. */
  HTTP_BODY_SMALL = 64 << 10,
  HTTP_BODY_MUCH = 512 << 10,  /* request_make_room */
  HTTP_DISCARD_MAX = 64 << 20, /* bytes of a refused body that are read before the connection is cut */
  /* A request that is refused while a longer body, or one of unknown length, arrives is answered at once, and
   * is the last of its connection. */
  HTTP_PATIENT_MAX = 64 << 10,
  HTTP_SILENCE_MS = 30000,  /* the node notices that a client's host is gone after so long, */
  HTTP_LEASE_MS = 5000,     /* after so long where the client has a lease (request_lease), */
  HTTP_WATCH_MS = 2000,     /* or this much later */
  HTTP_IDLE_TIMEOUT_S = 60, /* a connection without traffic for so long is closed */
  /* So many connections to the socket beyond LIMIT_CONNECTIONS are accepted, for requests that are no streams
   * (request_may_stream), and closed after so short a time without traffic. */
  HTTP_SPARE = 32,
  HTTP_SPARE_TIMEOUT_S = 2,
  /* A stream with more bytes pending is full: senders that can wait are suspended until it drains. */
  HTTP_STREAM_HIGH = 1 << 20,
  /* Bounds (core/limits.h): a stream with more bytes pending than LIMIT_STREAM is cut; senders that can wait
   * are suspended (vm_lack) long before.  There are LIMIT_CONNECTIONS connections on the socket, and as many
   * on the port that have proved the cookie; further connections wait in the kernel's backlog. */
};

struct metrics;
struct request;
struct routes;

/* Starts both listeners. The server owns the descriptors from now on, even when server_init fails. The caller
 * calls server_finish and server_free in either case. ERR_NOMEM, ERR_SYSTEM. */
int server_init(struct agent *a, const struct routes *routes, int unix_fd, int tcp_fd,
                struct error *e) MUST_CHECK;
void server_quiesce(struct agent *a);     /* takes no new connections */
void server_end_streams(struct agent *a); /* ends the answers that would go on for ever */
bool server_idle(const struct agent *a);  /* no request is under way */
void server_finish(struct agent *a);      /* closes its handles; the loop runs once more before server_free */
void server_free(struct agent *a);

/* Counts of connections. Takes time for each open request. */
struct server_stats {
  /* Connections refused before they had proved the cookie, since the start. */
  int64_t refused[REFUSAL_REASONS];
  int unproved;    /* now: connections that have not yet proved the cookie (gate.h) */
  int connections; /* now: connections that have proved the cookie */
  int local;       /* now: connections to the socket */
  size_t streams;  /* bytes pending in all streams */
  size_t bodies;   /* bytes of bodies that are kept as text (request_keep) */
  size_t longest;  /* bytes pending in the longest stream */
};
void server_stats(const struct agent *a, struct server_stats *out);
void server_metrics(const struct agent *a, struct metrics *out);

/* The server's part in a connection of a link (routes.h): its handshake is done; its socket is about to be
 * closed. */
void server_link_proved(struct agent *a, int fd);
void server_link_closing(struct agent *a, int fd);

/* What a handler reads. Returned pointers are borrowed, and valid as long as the request. */
struct agent *request_agent(const struct request *r);
const char *
request_segment(const struct request *r); /* what the route's "*" stands for, unescaped; or NULL */
const char *request_query(struct request *r,
                          const char *key);            /* unescaped; NULL when the query has no such key */
bool request_flag(struct request *r, const char *key); /* a query key that is neither absent nor 0 or false */
json_t *request_body(const struct request *r);         /* NULL when there was none */
json_t *request_take_body(struct request *r);          /* the same; it is the caller's from now on */
size_t request_body_size(const struct request *r);     /* the bytes of its text */
/* Makes room in b, which has what has come of the body, for the rest, once much has come; nothing happens
 * where the length is not known, or over max.  A buffer that grows as a body comes is moved again and again,
 * which takes milliseconds each time. */
void request_make_room(const struct request *r, struct buf *b, size_t max);
/* Says how many bytes of the body are kept as text, until the next call or the end of the request. False,
 * with *e set, when all requests would then keep more than LIMIT_BODIES; never for fewer bytes than before.
 */
bool request_keep(struct request *r, size_t bytes, struct error *e);
/* A job (jobs.h) for a request that is not answered yet, on the bytes of its body, or, with
 * request_job_continue, on what an earlier job has made of them; one at a time. `done` calls request_job_done
 * first: it returns the request, or NULL when that is over. */
struct request_job {
  struct job job; /* the first member */
  struct request *request;
};
void request_job(struct request *r, struct request_job *j, void (*run)(struct job *job),
                 void (*done)(struct job *job));
void request_job_continue(struct request *r, struct request_job *j, void (*run)(struct job *job),
                          void (*done)(struct job *job));
struct request *request_job_done(struct request_job *j);
/* request_job for work that is done on the loop, in slices, without a job: `request` is NULL once the request
 * is over. */
void request_slices(struct request *r, struct request_job *j);

bool request_is_lines(const struct request *r); /* is the body application/x-ndjson? */
bool request_peer(const struct request *r,
                  char out[64]); /* the client's IP address; false on the unix socket */

/* While a request is not answered, MHD does not read from its connection, so it does not notice that the
 * client hangs up. After this call, `gone` runs at most once, when the client hangs up before the answer. 0
 * or ERR_NOMEM. */
int request_on_disconnect(struct request *r, void (*gone)(void *data), void *data) MUST_CHECK;

/* The answers.  body and text (heap) are consumed; NULL stands for memory that ran out, and answers 503. */
void respond_json(struct request *r, unsigned status, json_t *body);
void respond_text(struct request *r, const char *type, char *text, size_t n);
void respond_error(struct request *r, const struct error *e);
/* As respond_error, with further members of the problem document (consumed). */
void respond_problem(struct request *r, const struct error *e, json_t *members);
void respond_code(struct request *r, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Does the client of this request want its stream as octets (wire/octets.h)? */
bool request_octets(const struct request *r);

/* An answer of JSON lines that goes on until stream_end, or with `octets` of the events, where the client
 * wants that, of octets.  closed(data, gone) runs once, after stream_end or when the client is gone (then
 * gone is true); after it the stream no longer exists.  drained(data) runs when a full stream has emptied to
 * half of HTTP_STREAM_HIGH; it may be NULL. */
struct stream;
struct stream_events {
  void (*closed)(void *data, bool gone);
  void (*drained)(void *data);
  bool octets;
};
/* May this request be answered with a stream that may go on for long?  False when the socket has
 * LIMIT_CONNECTIONS connections without it: the request has then been answered with ERR_BUSY.  To be asked
 * before anything is begun for the client. */
bool request_may_stream(struct request *r) MUST_CHECK;

/* Begins a stream. NULL when memory ran out: the request has then been answered with ERR_NOMEM, and no event
 * runs. */
struct stream *respond_stream(struct request *r, const struct stream_events *events, void *data);
void stream_line(struct stream *s, json_t *line);           /* a line, or a record; consumes line */
void stream_text(struct stream *s, const struct buf *text); /* whole lines of JSON text, or whole records */
void stream_take(struct stream *s, struct buf *lines); /* the same; empties lines, mostly without a copy */
/* stream_text without a copy: whole lines or records are to be appended to the buffer that stream_open
 * returns (NULL: the stream has ended), and stream_close is to be called at once afterwards. */
struct buf *stream_open(struct stream *s);
void stream_close(struct stream *s);
bool stream_full(const struct stream *s);
/* May the owner of the stream keep more for it? kept: the bytes that the owner keeps already. False when the
 * stream has ended; cuts it when it has more than LIMIT_STREAM with them. */
bool stream_admits(struct stream *s, size_t kept);
void stream_end(struct stream *s);

/* The events of an upload: a request whose body the handler gets in parts, as it arrives. The handler of a
 * route marked ROUTE_UPLOAD is called before the body and sets the events with request_upload. data(…) gets a
 * part, and returns non-zero to cut the connection. done runs when the body is complete, and answers the
 * request (NULL: the answer is an empty object). closed runs once, however the request ended. stop (may be
 * NULL) runs when the node stops after done and before the answer, and gives the answer.
 *
 * The handler may answer before the body is complete: the rest of the body is then discarded. A client that
 * sends more than HTTP_PATIENT_MAX bytes, or does not say how many, gets the answer at once, and its
 * connection is closed afterwards; another one gets it after its body. */
struct upload_events {
  int (*data)(void *data, const char *bytes, size_t n);
  void (*done)(void *data);
  void (*closed)(void *data);
  void (*stop)(void *data);
};
void request_upload(struct request *r, const struct upload_events *events, void *data);
/* Called in `data`: MHD reads no more of the body until request_release. */
void request_hold(struct request *r);
void request_release(struct request *r); /* does nothing when the request is not held */
void request_cut(struct request *r);     /* ends the connection of an upload or a stream; closed follows */
/* The client of this request has a lease: the node notices after HTTP_LEASE_MS, not HTTP_SILENCE_MS, that its
 * host is gone.  A client that is stopped, and does not read, keeps its lease. */
void request_lease(struct request *r);

#endif
