/* Invariant: a client is a hosted process until client_end.  It is freed by client_closed when it has a
 * stream, else by whichever of client_refuse and client_begin answers its request. */
#include "agent/api/client.h"

#include "agent/api/document.h"

#include <stdlib.h>

struct client *client_new(struct request *r, size_t size, const struct hosted_class *class) {
  struct agent *a = request_agent(r);
  if (!request_may_stream(r)) return NULL;
  struct client *c = calloc(1, size);
  int code = c ? hosted_begin(a, &c->hosted, class, a->console) : ERR_NOMEM;
  if (!code) {
    c->request = r;
    return c;
  }
  free(c);
  char why[LIMIT_TEXT_SIZE];
  respond_code(r, code, "%s", hosted_refusal(a, code, why));
  return NULL;
}

void client_end(struct client *c, struct term *reason) {
  if (c->ended) return;
  c->ended = true;
  hosted_end(&c->hosted, reason);
}

void client_closed(struct client *c) {
  c->stream = NULL;
  client_end(c, NULL);
  free(c);
}

void client_exit(struct hosted *p, struct term *reason, bool kill) {
  (void)kill;
  struct client *c = (struct client *)p;
  client_end(c, reason);
  if (c->stream) stream_end(c->stream); /* else client_begin or client_refuse says why */
}

static void refuse_ended(struct client *c) {
  respond_code(c->request, ERR_LOST,
               "an exit signal ended the process of this request before it was answered");
  client_closed(c);
}

void client_refuse(struct client *c, const struct error *e) {
  if (c->ended) {
    refuse_ended(c);
    return;
  }
  respond_error(c->request, e);
  client_closed(c);
}

bool client_begin(struct client *c, const struct stream_events *events, npid first) {
  struct request *r = c->request;
  if (c->ended) {
    refuse_ended(c);
    return false;
  }
  c->request = NULL;
  c->stream = respond_stream(r, events, c);
  if (!c->stream) {
    client_closed(c);
    return false;
  }
  stream_line(c->stream, document_pid(c->hosted.agent, first));
  return true;
}
