/* Invariant: a link's `down` runs at most once, and the link is freed right after it; open, write and close
 * never run it.  A stream of theirs and the link that adopted it point at
 * each other until either ends, and whoever ends first clears both pointers. */
#include "agent/mesh/transport.h"

#include "base/clock.h"
#include "wire/frame.h"
#include "wire/lines.h"

#include <stdlib.h>
#include <string.h>

struct transport {
  const struct transport_events *events;
  void *data;
  char peer[NODENAME_SIZE];
  struct dial_request *out;
  struct buf queue; /* what ours has yet to say */
  struct incoming *in;
  bool busy;    /* as last told */
  bool parting; /* the queue is the last of ours */
  bool dead;
  bool spoke; /* since the last tick */
  int64_t heard_ns;
};

struct incoming {
  struct lines lines;
  transport_greet *greet;
  void *data;
  void (*cut)(void *request);
  void *request;
  struct transport *link; /* NULL until it has said who it is from, and again after the link's end */
  bool greeted;
  char address[64];
};

/* --- the link ------------------------------------------------------------------------------------------- */

static void retire(struct transport *l) {
  dial_cancel(l->out);
  if (l->in) {
    l->in->link = NULL;
    l->in->cut(l->in->request);
  }
  buf_finish(&l->queue);
  free(l);
}

static void lose(struct transport *l, const struct error *e) {
  if (l->dead) return;
  l->dead = true;
  l->events->down(l->data, e);
  retire(l);
}

static size_t waiting(const struct transport *l) {
  return l->queue.len;
}

static void check_busy(struct transport *l) {
  bool busy = waiting(l) > (l->busy ? TRANSPORT_QUEUE_HIGH / 2 : TRANSPORT_QUEUE_HIGH);
  if (busy == l->busy) return;
  l->busy = busy;
  l->events->busy(l->data, busy);
}

static size_t on_read(void *data, char *out, size_t max) {
  struct transport *l = data;
  size_t left = waiting(l), n = left < max ? left : max;
  if (!n) return l->parting ? DIAL_END : 0;
  memcpy(out, l->queue.data, n);
  buf_consume(&l->queue, n);
  buf_shrink(&l->queue);
  check_busy(l);
  return n;
}

static void on_started(void *data) {
  struct transport *l = data;
  l->events->ready(l->data);
}

static void on_out_done(void *data, const struct error *e, bool reached, json_t *body) {
  (void)reached, (void)body;
  struct transport *l = data;
  struct error closed;
  l->out = NULL;
  if (!e) {
    error_set(&closed, ERR_LOST, "%s: the peer ended the link (lost)", l->peer);
    e = &closed;
  }
  lose(l, e);
}

static const struct dial_source transport_source = {on_read, on_started};

static struct transport *transport_open(void *carrier, const struct dial_target *to,
                                        const struct transport_events *events, void *data, struct error *e) {
  struct transport *l = calloc(1, sizeof *l);
  if (!l) {
    error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return NULL;
  }
  *l = (struct transport){.events = events, .data = data, .heard_ns = clock_ns()};
  snprintf(l->peer, sizeof l->peer, "%s", to->node);
  l->out = dial_upload(carrier, to, "/v1/link", &transport_source, on_out_done, l, e);
  if (l->out) return l;
  free(l);
  return NULL;
}

static int transport_write(struct transport *l, const char *bytes, size_t n) {
  if (waiting(l) > TRANSPORT_QUEUE_MAX) return ERR_BUSY;
  buf_append(&l->queue, bytes, n);
  if (!buf_ok(&l->queue)) return ERR_NOMEM;
  l->spoke = true;
  check_busy(l);
  return l->out ? dial_resume(l->out) : 0;
}

static void transport_tick(struct transport *l, int heartbeat_ms) {
  int64_t silence_ms = (clock_ns() - l->heard_ns) / 1000000;
  if (silence_ms > 4 * (int64_t)heartbeat_ms) {
    struct error e;
    error_set(&e, ERR_TIMEOUT, "%s: silent for %.1f s (timeout)", l->peer, (double)silence_ms / 1000);
    lose(l, &e);
    return;
  }
  if (!l->spoke && transport_write(l, "\n", 1)) return; /* a full queue speaks for itself */
  l->spoke = false;
}

static void transport_close(struct transport *l) {
  if (!l || l->dead) return;
  l->dead = true;
  retire(l);
}

static void nothing_ready(void *data) {
  (void)data;
}
static void nothing_busy(void *data, bool busy) {
  (void)data, (void)busy;
}
static void nothing_down(void *data, const struct error *e) {
  (void)data, (void)e;
}

static void transport_part(struct transport *l, const char *bytes, size_t n) {
  static const struct transport_events nobody = {
      .ready = nothing_ready, .busy = nothing_busy, .down = nothing_down};
  l->events = &nobody;
  l->parting = true;
  if (l->in) l->in->link = NULL;
  l->in = NULL;
  if (!bytes || transport_write(l, bytes, n) || !l->out) transport_close(l);
}

/* --- their stream --------------------------------------------------------------------------------------- */

static void transport_adopt(struct transport *l, struct incoming *in) {
  l->in = in;
  in->link = l;
  l->heard_ns = clock_ns();
}

static const char *incoming_source(const struct incoming *in) {
  return in->address;
}

static int on_line(void *data, char *text, size_t n) {
  struct incoming *in = data;
  if (!n) return 0;
  if (!in->greeted) {
    in->greeted = true;
    return in->greet(in->data, in, text, n);
  }
  if (!in->link) return 0;                                /* after the link has parted */
  return in->link->events->line(in->link->data, text, n); /* may end the link */
}

int incoming_bytes(void *incoming, const char *bytes, size_t n) {
  struct incoming *in = incoming;
  if (in->link) in->link->heard_ns = clock_ns();
  int code = lines_feed(&in->lines, bytes, n, on_line, in);
  if (!code || !in->link) return code;
  struct error e;
  error_set(&e, code, "%s: what it sends is not understood: %s (version)", in->link->peer,
            err_sentence(code));
  lose(in->link, &e);
  return code;
}

void incoming_closed(void *incoming) {
  struct incoming *in = incoming;
  if (in->link) {
    struct transport *l = in->link;
    struct error e;
    l->in = NULL;
    error_set(&e, ERR_LOST, "%s: connection reset (lost)", l->peer);
    lose(l, &e);
  }
  lines_finish(&in->lines);
  free(in);
}

struct incoming *incoming_new(const char *address, transport_greet *greet, void *data,
                              void (*cut)(void *request), void *request) {
  struct incoming *in = calloc(1, sizeof *in);
  if (!in) return NULL;
  *in = (struct incoming){.greet = greet, .data = data, .cut = cut, .request = request};
  lines_init(&in->lines, FRAME_MAX);
  snprintf(in->address, sizeof in->address, "%s", address);
  return in;
}

/* --- the class ------------------------------------------------------------------------------------------ */

static struct dial_request *offer(void *carrier, const struct dial_target *to, json_t *hello, int timeout_ms,
                                  dial_done *done, void *data, struct error *e) {
  return dial_json(carrier, to, "PUT", "/v1/link", hello, timeout_ms, done, data, e);
}

const struct transport_class transport_http = {
    .offer = offer,
    .withdraw = dial_cancel,
    .open = transport_open,
    .write = transport_write,
    .tick = transport_tick,
    .part = transport_part,
    .close = transport_close,
    .adopt = transport_adopt,
    .source = incoming_source,
};
