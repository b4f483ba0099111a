/* request: a request and the server it came to; shared by http.c (servers and requests), answer.c and
 * stream.c, and private to them. */
#ifndef AGENT_HTTP_REQUEST_H
#define AGENT_HTTP_REQUEST_H

#include "agent/http/server.h"
#include "agent/http/routes.h"
#include "base/buf.h"

#include <microhttpd.h>

struct server { /* one MHD daemon on our loop */
  struct agent *agent;
  struct MHD_Daemon *daemon;
  uv_poll_t poll;
  uv_timer_t timer;
  uv_idle_t soon;     /* a timer of 0 ms that is set again as it fires would never let libuv poll */
  unsigned fruitless; /* runs in a row that MHD asked for and that did nothing */
  bool active;        /* this run called us */
  bool remote;        /* TLS: its clients have proved the cookie */
  struct request *requests;
};

struct request {
  struct request *next, **pprev; /* in its server's list */
  struct server *server;
  struct MHD_Connection *conn;
  const struct route *route;
  char *segment;
  struct buf bytes; /* the body as it arrives */
  size_t discarded;
  json_t *body;
  struct error refused;    /* why the request is answered without a handler */
  unsigned refused_status; /* where that is not the error's own */
  struct buf allow;        /* the methods there are, when it was not one of them */
  struct MHD_Response *response;
  unsigned status;
  bool dispatched, suspended, answered, upload_over, held;
  const struct upload_events *upload;
  void *upload_data;
  struct stream *stream;
  struct disconnect *disconnect;
};

/* http.c: what was resumed or queued is looked at when the server runs: it will, from a clean stack. */
void server_nudge(struct server *s);
int request_fd(const struct request *r);

/* answer.c */
void answer(struct request *r, unsigned status, struct MHD_Response *response); /* response is consumed */
void answer_refused(struct request *r); /* with what r->refused says */

/* watch.c */
void request_forget_disconnect(struct request *r);

/* stream.c */
void stream_gone(struct stream *s); /* nobody listens any more, or may */
void stream_free(struct stream *s); /* accepts NULL; runs `closed` */

#endif
