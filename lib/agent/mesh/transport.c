/* Invariant: a struct incoming is a connection with the streams on it: `writer` is the transport whose stream
 * goes out on it, `reader` the transport that has adopted the peer's stream on it; mostly they are one
 * transport.  These and the transport's `out` and `in` point at each other until the transport ends or the
 * connection is gone, which clears both.  The event `down` runs at most once, and the transport is freed
 * right after it; open, write, part and close never run it.
 *
 * Orderings: the bytes that a connection has taken before a write arrive before it.  A connection's memory
 * stays until the loop's next turn, so a line of the peer may end the transport and close the connection it
 * came on. */
#include "agent/mesh/transport.h"

#include "base/clock.h"
#include "wire/frame.h"
#include "wire/lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct transport {
  const struct transport_events *events;
  void *data;
  char peer[NODENAME_SIZE];
  struct limits *limits;
  struct incoming *out, *in;
  bool busy;         /* the last value of the event `busy` */
  bool parting;      /* our stream ends when the queue is sent */
  bool dead;         /* `down` has run, or the user has closed the transport */
  int64_t opened_ms; /* when it was made or has adopted a stream */
  uint64_t written;
};

struct incoming {
  struct connection *connection; /* NULL: closed */
  struct transport_carrier *carrier;
  struct lines lines;
  struct transport *writer, *reader;
  bool greeted; /* the first line of the peer has arrived */
  char address[64];
  struct tunnel *tunnel;     /* that it goes through, asked for by this node; or NULL */
  char relay[NODENAME_SIZE]; /* the relay of its tunnel, whoever has asked for it; or "" */
};

/* --- the end -------------------------------------------------------------------------------------------- */

static void close_stream(struct incoming *in) {
  struct connection *c = in->connection;
  in->connection = NULL;
  connection_close(c);
}

static void retire(struct transport *t) {
  struct incoming *out = t->out, *in = t->in;
  if (out) out->writer = NULL;
  if (in) in->reader = NULL;
  if (out) close_stream(out);
  if (in && in != out) close_stream(in);
  free(t);
}

static void lose(struct transport *t, const struct error *e) {
  if (t->dead) return;
  t->dead = true;
  t->events->down(t->data, e);
  retire(t);
}

static void lose_with(struct transport *t, int code, const char *what) {
  struct error e;
  error_set(&e, code, "%s: %s", t->peer, what);
  lose(t, &e);
}

/* --- events of a connection ----------------------------------------------------------------------------- */

static void on_opened(void *data) {
  const struct incoming *in = data;
  if (in->writer) in->writer->events->ready(in->writer->data);
}

static int on_line(void *data, char *text, size_t n) {
  struct incoming *in = data;
  if (!in->connection) return ERR_LOST;
  if (!n) return 0;
  if (in->greeted)
    return !in->reader || in->reader->parting ? 0 : in->reader->events->line(in->reader->data, text, n);
  in->greeted = true;
  bool had_writer = in->writer;
  int code = in->carrier->greet(in->carrier->data, in, text, n);
  if (code || !in->connection) return code ? code : ERR_LOST;
  connection_settle(in->connection);
  /* The greeting has put this node's stream onto the connection, which is open already. */
  if (!had_writer && in->writer) in->writer->events->ready(in->writer->data);
  return 0;
}

static int on_bytes(void *data, const char *bytes, size_t n) {
  struct incoming *in = data;
  return lines_split(&in->lines, bytes, n, on_line, in);
}

static void check_busy(struct transport *t, size_t waiting) {
  bool busy = waiting > (size_t)(t->busy ? TRANSPORT_QUEUE_HIGH / 2 : TRANSPORT_QUEUE_HIGH);
  if (busy == t->busy) return;
  t->busy = busy;
  t->events->busy(t->data, busy);
}

static size_t waiting(const struct transport *t) {
  return t->out && t->out->connection ? connection_queued(t->out->connection) : 0;
}

static void on_drained(void *data) {
  const struct incoming *in = data;
  if (in->writer && in->writer->busy) check_busy(in->writer, waiting(in->writer));
}

static void on_lost(void *data, int code, const char *what) {
  struct incoming *in = data;
  in->connection = NULL;
  if (in->writer) lose_with(in->writer, code, what);
  if (in->reader && !in->reader->parting) lose_with(in->reader, code, what);
}

static void incoming_free(struct incoming *in) {
  lines_finish(&in->lines);
  free(in);
}

static void on_freed(void *data) {
  struct incoming *in = data;
  if (in->writer) in->writer->out = NULL;
  if (in->reader) in->reader->in = NULL;
  tunnel_forget(in->tunnel);
  incoming_free(in);
}

/* A peer asks this node for a tunnel, by the first request on its connection. */
static int on_asked(void *data, const struct connection_ask *ask, struct error *e) {
  struct incoming *in = data;
  if (*in->relay)
    return error_set(e, ERR_PERMISSION, "%s: no tunnel goes through another one (permission)", ask->to);
  int code = tunnel_relay(in->carrier->tunnels, in->connection, in->address, ask, e);
  if (!code) incoming_free(in); /* the connection has another owner */
  return code;
}

static const struct connection_events connection_events = {on_opened, on_bytes, on_drained,
                                                           on_lost,   on_freed, on_asked};

static struct incoming *incoming_new(struct transport_carrier *carrier, const char *address) {
  struct incoming *in = calloc(1, sizeof *in);
  if (!in) return NULL;
  in->carrier = carrier;
  lines_init(&in->lines, FRAME_MAX);
  in->lines.octets = frame_octets;
  snprintf(in->address, sizeof in->address, "%s", address);
  return in;
}

void transport_accept(struct transport_carrier *carrier, int fd, const char *address) {
  struct incoming *in = incoming_new(carrier, address);
  if (!in) {
    connections_discard(carrier->connections, fd);
    return;
  }
  in->connection = connection_accept(carrier->connections, fd, true, &connection_events, in);
  if (!in->connection) incoming_free(in);
}

/* --- tunnels -------------------------------------------------------------------------------------------- */

/* A tunnel that was called for is open: serves the link that goes through it. */
static void on_tunnel(void *data, int fd, const struct tunnel_call *call, const char *relay) {
  struct transport_carrier *carrier = data;
  struct incoming *in = incoming_new(carrier, call->address);
  if (!in) {
    close(fd);
    return;
  }
  snprintf(in->relay, sizeof in->relay, "%s", relay);
  in->connection = connection_accept(carrier->connections, fd, false, &connection_events, in);
  if (!in->connection) incoming_free(in);
}

static void transport_answer(void *carrier, const struct dial_target *relay, const struct tunnel_call *call) {
  struct transport_carrier *c = carrier;
  tunnel_answer(c->tunnels, relay, call, on_tunnel, c);
}

/* The end of a tunnel that was open is also the end of its socket, which is read behind its bytes. */
static void on_tunnel_ended(void *data, bool opened, int code, const char *what) {
  struct incoming *in = data;
  struct connection *c = in->connection;
  in->tunnel = NULL;
  if (opened || !c) return;
  on_lost(in, code, what);
  connection_close(c);
}

static struct connection *dial_through(struct transport_carrier *carrier, const struct dial_target *to,
                                       struct incoming *in, struct error *e) {
  int fd;
  snprintf(in->relay, sizeof in->relay, "%s", to->via->node);
  in->tunnel = tunnel_dial(carrier->tunnels, to->via, to->node, on_tunnel_ended, in, &fd, e);
  if (!in->tunnel) {
    error_set(e, e->code, "%s: via %s", to->node, e->text);
    return NULL;
  }
  struct connection *c = connection_over(carrier->connections, fd, to->node, &connection_events, in);
  if (c) return c;
  tunnel_forget(in->tunnel);
  error_set(e, ERR_NOMEM, "%s: %s", to->node, err_sentence(ERR_NOMEM));
  return NULL;
}

/* --- the class ------------------------------------------------------------------------------------------ */

/* Gives a transport a connection of its own. */
static int dial(struct transport *t, struct transport_carrier *carrier, const struct dial_target *to,
                struct error *e) {
  struct incoming *in = incoming_new(carrier, to->host);
  if (!in) return error_set(e, ERR_NOMEM, "%s: %s", to->node, err_sentence(ERR_NOMEM));
  in->connection = to->via ? dial_through(carrier, to, in, e)
                           : connection_dial(carrier->connections, to->node, to->host, to->port, NULL,
                                             &connection_events, in, e);
  if (!in->connection) {
    incoming_free(in);
    return e->code;
  }
  t->out = in;
  return 0;
}

static struct transport *transport_open(void *carrier, const struct dial_target *to, struct incoming *in,
                                        const struct transport_events *events, void *data, struct error *e) {
  struct transport *t = calloc(1, sizeof *t);
  if (!t) {
    error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
    return NULL;
  }
  *t = (struct transport){.events = events,
                          .data = data,
                          .limits = ((struct transport_carrier *)carrier)->limits,
                          .opened_ms = clock_ns() / 1000000};
  snprintf(t->peer, sizeof t->peer, "%s", to->node);
  if (in && in->connection && !in->writer) {
    t->out = in;
  } else if (dial(t, carrier, to, e)) {
    free(t);
    return NULL;
  }
  t->out->writer = t;
  return t;
}

static int transport_write(struct transport *t, const char *bytes, size_t n) {
  if (!t->out || !t->out->connection) return 0; /* `down` follows */
  size_t before = waiting(t);
  if (before > (size_t)limit_max(t->limits, LIMIT_PEER_QUEUE)) {
    limit_refuse(t->limits, LIMIT_PEER_QUEUE);
    return ERR_BUSY;
  }
  if (connection_write(t->out->connection, bytes, n)) return ERR_NOMEM;
  t->written += n;
  check_busy(t, before + n);
  return 0;
}

static struct lane *transport_lane(struct transport *t) {
  return t->out && t->out->connection && !t->parting ? connection_lane(t->out->connection) : NULL;
}

static void transport_life(const struct transport *t, struct transport_life *out) {
  struct connection_life ours = {0}, theirs = {0};
  if (t->out && t->out->connection) connection_life(t->out->connection, &ours);
  if (t->in && t->in->connection) connection_life(t->in->connection, &theirs);
  size_t left = ours.queued + ours.unacked;
  uint64_t written = t->written + ours.direct;
  if (left > written) left = written; /* it also counts the bytes that TLS and HTTP add */
  *out = (struct transport_life){.heard_ms = theirs.heard_ms > t->opened_ms ? theirs.heard_ms : t->opened_ms,
                                 .in = theirs.in,
                                 .out = written - left,
                                 .waiting = left};
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

/* The transport lives until the peer has closed the connection of our stream, for a limited time (on_lost).
 */
static void transport_part(struct transport *t, const char *bytes, size_t n) {
  static const struct transport_events nobody = {
      .ready = nothing_ready, .busy = nothing_busy, .down = nothing_down};
  bool too_much = waiting(t) > TRANSPORT_FAREWELL_MAX;
  t->events = &nobody;
  t->parting = true;
  if (!bytes || too_much || transport_write(t, bytes, n) || !t->out || !t->out->connection)
    transport_close(t);
  else
    connection_end(t->out->connection, TRANSPORT_FAREWELL_MS);
}

static void transport_adopt(struct transport *t, struct incoming *in) {
  t->in = in;
  in->reader = t;
  t->opened_ms = clock_ns() / 1000000;
}

static const char *incoming_source(const struct incoming *in) {
  return in->address;
}

static const char *incoming_relay(const struct incoming *in) {
  return in->relay;
}

static struct dial_request *offer(void *carrier, const struct dial_target *to, json_t *hello, int timeout_ms,
                                  dial_done *done, void *data, struct error *e) {
  const struct transport_carrier *c = carrier;
  return dial_json(c->dialler, to, "PUT", "/v1/link", hello, timeout_ms, done, data, e);
}

const struct transport_class transport_http = {
    .offer = offer,
    .withdraw = dial_cancel,
    .open = transport_open,
    .write = transport_write,
    .lane = transport_lane,
    .life = transport_life,
    .part = transport_part,
    .close = transport_close,
    .adopt = transport_adopt,
    .source = incoming_source,
    .relay = incoming_relay,
    .answer = transport_answer,
};
