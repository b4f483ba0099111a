/* Invariant: the event `down` runs at most once, and the transport is freed right after it; open, write, part
 * and close never run it.  An incoming stream and the transport that has adopted it point at each other until
 * one of them ends, which clears both pointers. */
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
  struct buf queue; /* lines that libcurl has not taken yet */
  struct limits *limits;
  struct incoming *in;
  bool busy;        /* the last value of the event `busy` */
  bool parting;     /* our stream ends when the queue is sent */
  bool dead;        /* `down` has run, or the user has closed or parted from the transport */
  int64_t heard_ms; /* when the last bytes arrived */
  uint64_t in_bytes, written;
};

struct incoming {
  struct lines lines;
  transport_greet *greet;
  void *data;
  void (*cut)(void *request);
  void *request;
  /* The transport that has adopted the stream; NULL before that, and after the end of that transport. */
  struct transport *transport;
  bool greeted; /* its first line has arrived */
  char address[64];
};

/* --- our stream ----------------------------------------------------------------------------------------- */

static void retire(struct transport *t) {
  dial_cancel(t->out);
  if (t->in) {
    t->in->transport = NULL;
    t->in->cut(t->in->request);
  }
  buf_finish(&t->queue);
  free(t);
}

static void lose(struct transport *t, const struct error *e) {
  if (t->dead) return;
  t->dead = true;
  t->events->down(t->data, e);
  retire(t);
}

static size_t waiting(const struct transport *t) {
  return t->queue.len;
}

static void check_busy(struct transport *t) {
  bool busy = waiting(t) > (t->busy ? TRANSPORT_QUEUE_HIGH / 2 : TRANSPORT_QUEUE_HIGH);
  if (busy == t->busy) return;
  t->busy = busy;
  t->events->busy(t->data, busy);
}

static size_t on_read(void *data, char *out, size_t max) {
  struct transport *t = data;
  size_t left = waiting(t), n = left < max ? left : max;
  if (!n) return t->parting ? DIAL_END : 0;
  memcpy(out, t->queue.data, n);
  buf_consume(&t->queue, n);
  buf_shrink(&t->queue);
  check_busy(t);
  return n;
}

static void on_started(void *data) {
  struct transport *t = data;
  t->events->ready(t->data);
}

static void on_out_done(void *data, const struct error *e, bool reached, json_t *body) {
  (void)reached, (void)body;
  struct transport *t = data;
  struct error closed;
  t->out = NULL;
  if (!e) {
    error_set(&closed, ERR_LOST, "%s: the peer ended the link (lost)", t->peer);
    e = &closed;
  }
  lose(t, e);
}

static const struct dial_source transport_source = {on_read, on_started};

static struct transport *transport_open(void *carrier, const struct dial_target *to,
                                        const struct transport_events *events, void *data, struct error *e) {
  struct transport *t = calloc(1, sizeof *t);
  if (!t) {
    error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return NULL;
  }
  *t = (struct transport){
      .events = events, .data = data, .heard_ms = clock_ns() / 1000000, .limits = dialler_limits(carrier)};
  snprintf(t->peer, sizeof t->peer, "%s", to->node);
  t->out = dial_upload(carrier, to, "/v1/link", &transport_source, on_out_done, t, e);
  if (t->out) return t;
  free(t);
  return NULL;
}

static int transport_write(struct transport *t, const char *bytes, size_t n) {
  if (waiting(t) > (size_t)limit_max(t->limits, LIMIT_PEER_QUEUE)) {
    limit_refuse(t->limits, LIMIT_PEER_QUEUE);
    return ERR_BUSY;
  }
  buf_append(&t->queue, bytes, n);
  if (!buf_ok(&t->queue)) return ERR_NOMEM;
  t->written += n;
  check_busy(t);
  return t->out ? dial_resume(t->out) : 0;
}

static void transport_life(const struct transport *t, struct transport_life *out) {
  size_t left = waiting(t) + (t->out ? dial_backlog(t->out) : 0);
  if (left > t->written) left = t->written; /* the backlog also counts the bytes that TLS and HTTP add */
  *out = (struct transport_life){
      .heard_ms = t->heard_ms, .in = t->in_bytes, .out = t->written - left, .waiting = left};
}

static void transport_close(struct transport *t) {
  if (!t || t->dead) return;
  t->dead = true;
  retire(t);
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

/* The transport lives until its own stream has ended, for a limited time; on_out_done then frees it, and cuts
 * the peer's stream unless the peer has ended that stream already. */
static void transport_part(struct transport *t, const char *bytes, size_t n) {
  static const struct transport_events nobody = {
      .ready = nothing_ready, .busy = nothing_busy, .down = nothing_down};
  bool too_much = waiting(t) > TRANSPORT_FAREWELL_MAX;
  t->events = &nobody;
  t->parting = true;
  if (!bytes || too_much || transport_write(t, bytes, n) || !t->out)
    transport_close(t);
  else
    dial_limit(t->out, TRANSPORT_FAREWELL_MS);
}

/* --- the peer's stream --- */

static void transport_adopt(struct transport *t, struct incoming *in) {
  t->in = in;
  in->transport = t;
  t->heard_ms = clock_ns() / 1000000;
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
  if (!in->transport || in->transport->parting) return 0;
  return in->transport->events->line(in->transport->data, text, n); /* this call may free the transport */
}

int incoming_bytes(void *incoming, const char *bytes, size_t n) {
  struct incoming *in = incoming;
  if (in->transport) {
    in->transport->heard_ms = clock_ns() / 1000000;
    in->transport->in_bytes += n;
  }
  int code = lines_split(&in->lines, bytes, n, on_line, in);
  if (!code || !in->transport || in->transport->parting) return code;
  struct error e;
  error_set(&e, code, "%s: what it sends is not understood: %s (version)", in->transport->peer,
            err_sentence(code));
  lose(in->transport, &e);
  return code;
}

void incoming_closed(void *incoming) {
  struct incoming *in = incoming;
  if (in->transport) {
    struct transport *t = in->transport;
    struct error e;
    t->in = NULL;
    error_set(&e, ERR_LOST, "%s: connection reset (lost)", t->peer);
    if (!t->parting) lose(t, &e);
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
    .life = transport_life,
    .part = transport_part,
    .close = transport_close,
    .adopt = transport_adopt,
    .source = incoming_source,
};
