/* request: a request and the listener that received it. Private to http/: handlers see server.h. */
#ifndef AGENT_HTTP_REQUEST_H
#define AGENT_HTTP_REQUEST_H

#include "agent/http/gate.h"
#include "agent/http/routes.h"
#include "agent/http/server.h"
#include "base/buf.h"

#include <microhttpd.h>

struct listener { /* one MHD daemon on the node's loop, for the unix socket or for the port */
  struct agent *agent;
  const struct routes *routes;
  int fd; /* the listening socket until the gate has it, then -1 */
  struct gate *gate;
  struct MHD_Daemon *daemon;
  int connections; /* how many connections MHD has, and how many links were accepted */
  uv_poll_t poll;
  uv_timer_t timer;
  uv_timer_t watch;   /* fires every HTTP_WATCH_MS: cuts connections to hosts that no longer answer */
  uv_idle_t soon;     /* runs MHD at once.  A timer of 0 ms that is set anew as it fires would keep libuv from
                         polling */
  bool polled;        /* libuv has `poll` */
  unsigned fruitless; /* how many runs in a row MHD has asked for and then done nothing in */
  bool active;        /* in this run MHD has called a callback */
  bool remote;        /* the listener of the port, which uses TLS: every client has proved the cookie */
  bool full;          /* there are as many connections as there may be */
  struct request *requests;
};

struct query { /* a part of the query */
  struct query *next;
  const char *key; /* in the request's `query` */
  char value[];    /* unescaped; "" when it has none */
};

struct request {
  struct request *next, **pprev; /* in its listener's list */
  struct listener *listener;
  struct MHD_Connection *conn;
  const struct route *route;
  char *segment;
  char *query; /* of the URL (heap), which check_query cuts into words; NULL: it has none */
  struct query *queries;
  struct buf bytes; /* the body as it arrives */
  size_t kept;      /* what request_keep was told */
  size_t discarded; /* bytes of a body that is too large */
  json_t *body;
  struct error refused;    /* why the request is answered without a handler; code 0: a handler answers it */
  unsigned refused_status; /* the HTTP status of `refused`; 0: the status that the error table gives */
  struct buf allow;        /* for ERR_METHOD: the methods that its path has */
  struct MHD_Response *response;
  unsigned status;
  bool endless;            /* the end of its body is not known from the start */
  bool asks;               /* its client waits to be told that it may send the body (Expect) */
  bool dispatched;         /* the body is complete */
  bool suspended;          /* its connection waits for an answer */
  bool answered;           /* `response` has been given */
  bool held;               /* the connection of an upload waits for request_release */
  bool upload_over;        /* the connection of an upload is cut */
  bool early;              /* the answer was sent while the body arrived */
  size_t body_size;        /* bytes of the text of `body` */
  struct request_job *job; /* that works for it */
  const struct upload_events *upload;
  void *upload_data;
  struct stream *stream;
  struct disconnect *disconnect;
  int silence_ms; /* HTTP_SILENCE_MS, or HTTP_LEASE_MS */
};

/* request.c: callbacks for MHD. request_on_url: the first line of a request has arrived; returns the *state
 * of the others. request_on_part: a request has begun, or n bytes of its body have arrived, or (0 bytes) its
 * body is complete. request_on_completed: the request is over. */
void *request_on_url(void *listener, const char *url, struct MHD_Connection *conn);
enum MHD_Result request_on_part(void *listener, struct MHD_Connection *conn, const char *url,
                                const char *method, const char *version, const char *bytes, size_t *n,
                                void **state);
void request_on_completed(void *listener, struct MHD_Connection *conn, void **state,
                          enum MHD_RequestTerminationCode code);
int request_fd(const struct request *r); /* the socket of its connection */

/* server.c: has MHD run soon, from the loop and not from within a callback, so that MHD handles the
 * connections that were resumed and the responses that were queued. */
void listener_nudge(struct listener *l);
/* server.c: the sum of `kept` of all requests. */
size_t *server_bodies(struct agent *a);

/* response.c: answer answers a request with `response`, which is consumed; answer_refused answers it with the
 * problem in r->refused. */
bool is_urgent(const struct request *r); /* must the answer not wait for the end of the body? */
void answer(struct request *r, unsigned status, struct MHD_Response *response);
void answer_refused(struct request *r);

/* disconnect.c */
void request_forget_disconnect(struct request *r);

/* stream.c */
size_t stream_pending(const struct stream *s);
void stream_gone(struct stream *s); /* its client is gone, or the node ends: the connection is closed */
void stream_free(struct stream *s); /* accepts NULL; runs `closed` */

#endif
