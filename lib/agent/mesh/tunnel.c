/* Invariant: a struct relayed is in the list `relayed`, ordered by when its bytes last moved, from its first
 * connection on until its last connection is freed; it is in the map `calls` while it has one connection, the
 * asking one, which is not lost.  A connection is held (connection_hold) while more than TUNNEL_HIGH bytes
 * wait for the other one.  A struct tunnel lives until its connection is freed and its handle, if it has one,
 * is closed; `rest` is not empty only while the connection is held.
 *
 * Orderings: the bytes of a direction stay in order, since each of them has one queue at a time: that of the
 * socket, that of the connection, or `rest`.  The end of a direction goes behind its bytes. */
#include "agent/mesh/tunnel.h"

#include "base/buf.h"
#include "base/holds.h"
#include "base/log.h"
#include "base/map.h"
#include "base/random.h"
#include "core/nodename.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  READ_BYTES = 64 << 10, /* that are read from a socket in a turn of the loop */
  END_MS = 1000,         /* how long the peer of an ended connection may take to end it, too */
};

struct half { /* of a tunnel that this node relays */
  struct relayed *of;
  struct connection *connection; /* NULL: lost */
};

struct relayed {
  struct tunnels *all;
  uint64_t id;
  char to[NODENAME_SIZE], from[NODENAME_SIZE];
  struct half ends[2]; /* of the asking node, and of the called one */
  int connections;     /* that are not freed */
  bool joined;
  int64_t moved_ms; /* when bytes last went through */
  TAILQ_ENTRY(relayed) in_all;
};
TAILQ_HEAD(relayed_list, relayed);

struct tunnel {
  struct tunnels *all;
  struct connection *connection; /* NULL: lost */
  char relay[NODENAME_SIZE];
  char from[NODENAME_SIZE], address[64];
  struct tunnel_call call; /* that is answered; id 0: this end has asked */
  tunnel_ended *ended;
  tunnel_open *open;
  void *data;
  bool opened, freed;
  int fd; /* this module's socket of the pair; -1: closed, or not made yet */
  int polled;
  bool polls, closing; /* `poll` is initialised, and is being closed */
  uv_poll_t poll;
  struct buf rest; /* bytes of the relay that the socket has not taken */
  bool ending;     /* the relay's stream has ended: the socket is closed once `rest` is written */
  TAILQ_ENTRY(tunnel) in_all;
};
TAILQ_HEAD(tunnel_list, tunnel);

struct tunnels {
  struct tunnels_config config;
  struct relayed_list relayed;
  struct tunnel_list ends;
  size_t count;
  uint64_t bytes;
  struct map calls; /* id → struct relayed */
  uv_timer_t idle;  /* due when the first of `relayed` has been idle for too long */
};

/* --- relaying ------------------------------------------------------------------------------------------- */

static int64_t now_ms(const struct tunnels *ts) {
  return (int64_t)uv_now(ts->config.loop);
}

static void on_idle(uv_timer_t *t);

static void set_idle(struct tunnels *ts) {
  const struct relayed *first = TAILQ_FIRST(&ts->relayed);
  int64_t ms = first ? first->moved_ms + ts->config.idle_ms - now_ms(ts) : 0;
  if (first)
    uv_timer_start(&ts->idle, on_idle, ms > 0 ? (uint64_t)ms : 0, 0);
  else
    uv_timer_stop(&ts->idle);
}

/* The timer is not set here: it looks at the first of the list when it is due. */
static void note_move(struct relayed *r) {
  struct tunnels *ts = r->all;
  TAILQ_REMOVE(&ts->relayed, r, in_all);
  r->moved_ms = now_ms(ts);
  TAILQ_INSERT_TAIL(&ts->relayed, r, in_all);
}

static struct half *other_of(struct half *h) {
  return &h->of->ends[h == h->of->ends];
}

static void free_relayed(struct relayed *r) {
  struct tunnels *ts = r->all;
  map_remove_id(&ts->calls, r->id);
  TAILQ_REMOVE(&ts->relayed, r, in_all);
  ts->count--;
  set_idle(ts);
  free(r);
}

/* Only `freed` runs after this: nobody may join the tunnel any more. */
static void cut(struct relayed *r) {
  map_remove_id(&r->all->calls, r->id);
  for (int i = 0; i < 2; i++) connection_close(r->ends[i].connection);
}

static void on_idle(uv_timer_t *t) {
  struct tunnels *ts = t->data;
  struct relayed *r = TAILQ_FIRST(&ts->relayed);
  holds_note(ts->config.holds, "tunnels", NULL);
  if (r && r->moved_ms + ts->config.idle_ms <= now_ms(ts)) {
    log_line(ts->config.log, "the tunnel from %s to %s ends: nothing has gone through it for %d s", r->from,
             r->to, ts->config.idle_ms / 1000);
    cut(r);
    note_move(r);
  }
  set_idle(ts);
}

static void relay_opened(void *data) {
  (void)data; /* only of connections for a link */
}

static int relay_bytes(void *data, const char *bytes, size_t n) {
  struct half *h = data, *other = other_of(h);
  if (!h->of->joined || !other->connection) return ERR_LOST;
  note_move(h->of);
  h->of->all->bytes += n;
  int code = connection_write(other->connection, bytes, n);
  if (!code && connection_queued(other->connection) > TUNNEL_HIGH) connection_hold(h->connection, true);
  return code;
}

static void relay_drained(void *data) {
  struct half *h = data, *other = other_of(h);
  if (other->connection && connection_queued(h->connection) <= TUNNEL_HIGH)
    connection_hold(other->connection, false);
}

/* One end is lost: the other one ends behind what waits for it. */
static void relay_lost(void *data, int code, const char *what) {
  struct half *h = data;
  const struct half *other = other_of(h);
  (void)code, (void)what;
  h->connection = NULL;
  map_remove_id(&h->of->all->calls, h->of->id);
  if (!other->connection) return;
  connection_hold(other->connection, false);
  connection_end(other->connection, END_MS);
}

static void relay_freed(void *data) {
  struct half *h = data;
  h->connection = NULL;
  if (!--h->of->connections) free_relayed(h->of);
}

static const struct connection_events relay_events = {.opened = relay_opened,
                                                      .bytes = relay_bytes,
                                                      .drained = relay_drained,
                                                      .lost = relay_lost,
                                                      .freed = relay_freed};

static void take_over(struct relayed *r, struct half *h, struct connection *c) {
  *h = (struct half){r, c};
  r->connections++;
  connection_hand_over(c, &relay_events, h);
}

/* The called node has come: the tunnel is open. */
static int join(struct tunnels *ts, struct connection *c, const struct connection_ask *ask, struct error *e) {
  struct relayed *r = map_get_id(&ts->calls, ask->call);
  if (!r || strcmp(ask->from, r->to) != 0 || strcmp(ask->to, r->from) != 0)
    return error_set(e, ERR_LOST, "%s does not wait for this tunnel, or no longer (lost)", ask->to);
  map_remove_id(&ts->calls, r->id);
  take_over(r, &r->ends[1], c);
  r->joined = true;
  note_move(r);
  if (connection_admit(r->ends[0].connection) || connection_admit(r->ends[1].connection)) cut(r);
  return 0;
}

static int make_relayed(struct tunnels *ts, const struct connection_ask *ask, struct relayed **out) {
  struct relayed *r = calloc(1, sizeof *r);
  if (!r) return ERR_NOMEM;
  do {
    r->id = random_number() & INT64_MAX;
  } while (!r->id || map_get_id(&ts->calls, r->id));
  if (map_put_id(&ts->calls, r->id, r)) {
    free(r);
    return ERR_NOMEM;
  }
  r->all = ts;
  for (int i = 0; i < 2; i++) r->ends[i].of = r;
  snprintf(r->to, sizeof r->to, "%s", ask->to);
  snprintf(r->from, sizeof r->from, "%s", ask->from);
  r->moved_ms = now_ms(ts);
  TAILQ_INSERT_TAIL(&ts->relayed, r, in_all);
  ts->count++;
  set_idle(ts);
  *out = r;
  return 0;
}

int tunnel_relay(struct tunnels *ts, struct connection *c, const char *address,
                 const struct connection_ask *ask, struct error *e) {
  struct relayed *r;
  if (strcmp(ask->relay, ts->config.self) != 0)
    return error_set(e, ERR_NAME, "%s is not here: this node is %s (name)", ask->relay, ts->config.self);
  if (nodename_parse(ask->to, &(struct nodename){0}, e) ||
      nodename_parse(ask->from, &(struct nodename){0}, e))
    return e->code;
  if (ask->call) return join(ts, c, ask, e);
  if ((int64_t)ts->count >= limit_max(ts->config.limits, LIMIT_TUNNELS))
    return limit_error(ts->config.limits, LIMIT_TUNNELS, ts->config.self, e);
  int code = make_relayed(ts, ask, &r);
  if (code) return error_set(e, code, "%s: %s", ts->config.self, err_sentence(code));
  code = ts->config.call(ts->config.data, ask->to, &(struct tunnel_call){r->id, ask->from, address}, e);
  if (code)
    free_relayed(r);
  else
    take_over(r, &r->ends[0], c);
  return code;
}

/* --- an end of this node -------------------------------------------------------------------------------- */

static void free_tunnel(struct tunnel *t) {
  if (!t->freed || t->polls) return;
  TAILQ_REMOVE(&t->all->ends, t, in_all);
  buf_finish(&t->rest);
  free(t);
}

static void on_poll_closed(uv_handle_t *h) {
  struct tunnel *t = h->data;
  t->polls = false;
  free_tunnel(t);
}

/* Closes this module's socket: the link reads the end behind what is in the socket. */
static void close_socket(struct tunnel *t) {
  if (t->fd < 0) return;
  close(t->fd);
  t->fd = -1;
  if (t->polls) uv_close((uv_handle_t *)&t->poll, on_poll_closed);
}

static void on_socket(uv_poll_t *p, int status, int events);

static void poll_socket(struct tunnel *t) {
  bool reads = t->connection && t->opened && connection_queued(t->connection) <= TUNNEL_HIGH;
  int events = (reads ? UV_READABLE : 0) | (t->rest.len ? UV_WRITABLE : 0);
  if (t->fd < 0 || !t->polls || events == t->polled) return;
  t->polled = events;
  uv_poll_start(&t->poll, events, on_socket);
}

/* The link has ended its direction, or is gone. */
static void end_of_socket(struct tunnel *t) {
  if (t->connection) {
    connection_hold(t->connection, false);
    connection_end(t->connection, END_MS);
  }
  close_socket(t);
}

static void read_socket(struct tunnel *t) {
  char bytes[READ_BYTES];
  ssize_t n = recv(t->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0 || connection_write(t->connection, bytes, (size_t)n))
    end_of_socket(t);
  else
    poll_socket(t);
}

/* Writes bytes of the relay to the socket; what it does not take goes into `rest`. */
static int write_socket(struct tunnel *t, const char *bytes, size_t n) {
  ssize_t taken = t->rest.len ? 0 : send(t->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (taken < 0 && errno != EAGAIN && errno != EINTR) return ERR_LOST;
  if (taken < 0) taken = 0;
  if ((size_t)taken == n) return 0;
  buf_append(&t->rest, bytes + taken, n - (size_t)taken);
  if (!buf_ok(&t->rest)) return ERR_NOMEM;
  connection_hold(t->connection, true);
  poll_socket(t);
  return 0;
}

/* The socket takes bytes again. */
static void write_rest(struct tunnel *t) {
  ssize_t taken = send(t->fd, t->rest.data, t->rest.len, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (taken < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (taken < 0) {
    end_of_socket(t);
    return;
  }
  buf_consume(&t->rest, (size_t)taken);
  if (t->rest.len) return;
  buf_finish(&t->rest);
  if (t->ending) {
    close_socket(t);
    return;
  }
  poll_socket(t);
  connection_hold(t->connection, false);
}

static void on_socket(uv_poll_t *p, int status, int events) {
  struct tunnel *t = p->data;
  holds_note(t->all->config.holds, "tunnels", NULL);
  if (status < 0) {
    end_of_socket(t);
    return;
  }
  if (events & UV_WRITABLE && t->rest.len) write_rest(t);
  if (events & UV_READABLE && t->fd >= 0 && t->connection) read_socket(t);
}

/* Makes the pair of sockets: *fd is the link's. */
static int make_pair(struct tunnel *t, int *fd) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) return ERR_SYSTEM;
  if (uv_poll_init(t->all->config.loop, &t->poll, pair[0])) {
    close(pair[0]);
    close(pair[1]);
    return ERR_SYSTEM;
  }
  t->poll.data = t;
  t->polls = true;
  t->fd = pair[0];
  *fd = pair[1];
  return 0;
}

static void end_opened(void *data) {
  struct tunnel *t = data;
  int fd;
  t->opened = true;
  if (!t->open) {
    poll_socket(t);
    return;
  }
  int code = make_pair(t, &fd);
  if (code) {
    log_line(t->all->config.log, "a tunnel to %s via %s: %s", t->from, t->relay, err_sentence(code));
    connection_end(t->connection, END_MS);
    return;
  }
  poll_socket(t);
  t->open(t->data, fd, &t->call, t->relay);
}

static int end_bytes(void *data, const char *bytes, size_t n) {
  struct tunnel *t = data;
  return t->fd < 0 ? ERR_LOST : write_socket(t, bytes, n);
}

static void end_drained(void *data) {
  poll_socket(data);
}

/* Tells the user, once, that the tunnel is over; *what is said of the relay. */
static void tell_end(struct tunnel *t, int code, const char *what) {
  tunnel_ended *ended = t->ended;
  char text[400];
  t->ended = NULL;
  snprintf(text, sizeof text, "via %s: %s", t->relay, what);
  if (ended) ended(t->data, t->opened, code, text);
}

static void end_lost(void *data, int code, const char *what) {
  struct tunnel *t = data;
  t->connection = NULL;
  if (t->open && !t->opened)
    log_line(t->all->config.log, "a tunnel to %s via %s: %s", t->from, t->relay, what);
  t->ending = true;
  if (!t->rest.len) close_socket(t);
  poll_socket(t);
  tell_end(t, code, what);
}

static void end_freed(void *data) {
  struct tunnel *t = data;
  t->connection = NULL;
  t->freed = true;
  if (!t->rest.len) close_socket(t);
  free_tunnel(t);
}

static const struct connection_events end_events = {
    .opened = end_opened, .bytes = end_bytes, .drained = end_drained, .lost = end_lost, .freed = end_freed};

/* Makes an end, and its connection to the relay. */
static struct tunnel *make_end(struct tunnels *ts, const struct dial_target *relay,
                               const struct connection_ask *ask, struct error *e) {
  struct tunnel *t = calloc(1, sizeof *t);
  if (!t) {
    error_set(e, ERR_NOMEM, "%s: %s", relay->node, err_sentence(ERR_NOMEM));
    return NULL;
  }
  *t = (struct tunnel){.all = ts, .fd = -1};
  snprintf(t->relay, sizeof t->relay, "%s", relay->node);
  t->connection =
      connection_dial(ts->config.connections, relay->node, relay->host, relay->port, ask, &end_events, t, e);
  if (!t->connection) {
    free(t);
    return NULL;
  }
  TAILQ_INSERT_TAIL(&ts->ends, t, in_all);
  return t;
}

struct tunnel *tunnel_dial(struct tunnels *ts, const struct dial_target *relay, const char *node,
                           tunnel_ended *ended, void *data, int *fd, struct error *e) {
  const struct connection_ask ask = {.to = node, .from = ts->config.self, .relay = relay->node};
  struct tunnel *t = make_end(ts, relay, &ask, e);
  if (!t) return NULL;
  int code = make_pair(t, fd);
  if (code) {
    connection_close(t->connection);
    error_set(e, code, "%s: %s", relay->node, err_sentence(code));
    return NULL;
  }
  t->ended = ended;
  t->data = data;
  return t;
}

void tunnel_forget(struct tunnel *t) {
  if (t) t->ended = NULL;
}

void tunnel_answer(struct tunnels *ts, const struct dial_target *relay, const struct tunnel_call *call,
                   tunnel_open *open, void *data) {
  struct error e;
  const struct connection_ask ask = {
      .to = call->from, .from = ts->config.self, .relay = relay->node, .call = call->id};
  struct tunnel *t = make_end(ts, relay, &ask, &e);
  if (!t) {
    log_line(ts->config.log, "a tunnel to %s: %s", call->from, error_text(&e));
    return;
  }
  snprintf(t->from, sizeof t->from, "%s", call->from);
  snprintf(t->address, sizeof t->address, "%s", call->address);
  t->call = (struct tunnel_call){call->id, t->from, t->address};
  t->open = open;
  t->data = data;
}

/* --- what they have in common --------------------------------------------------------------------------- */

struct tunnels *tunnels_new(const struct tunnels_config *config) {
  struct tunnels *ts = calloc(1, sizeof *ts);
  if (!ts) return NULL;
  ts->config = *config;
  if (!ts->config.idle_ms) ts->config.idle_ms = TUNNEL_IDLE_MS;
  TAILQ_INIT(&ts->relayed);
  TAILQ_INIT(&ts->ends);
  uv_timer_init(config->loop, &ts->idle);
  ts->idle.data = ts;
  return ts;
}

size_t tunnels_relayed(const struct tunnels *ts) {
  return ts->count;
}

uint64_t tunnels_bytes(const struct tunnels *ts) {
  return ts->bytes;
}

void tunnels_finish(struct tunnels *ts) {
  if (!ts) return;
  for (struct tunnel *t = TAILQ_FIRST(&ts->ends), *next; t; t = next) {
    next = TAILQ_NEXT(t, in_all);
    close_socket(t);
  }
  uv_close((uv_handle_t *)&ts->idle, NULL);
}

void tunnels_free(struct tunnels *ts) {
  if (!ts) return;
  map_finish(&ts->calls);
  free(ts);
}
