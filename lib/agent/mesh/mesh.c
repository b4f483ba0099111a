/* Invariant: there is one struct peer for each node name that this node has heard of.  It is kept until
 * mesh_free; when the table is full, the place of a peer that was never met is given to another name.  Only
 * handshake.c changes a peer's state.  A queue that is not empty waits for the handshake to end, or to begin
 * (in the queue of dials), or for the answer of a peer that was asked to close the link, or is being drained:
 * in DOWN its signals are refused, and from SYNCING on they are sent, a slice a turn of the loop.
 *
 * Orderings: signals to one peer go out in the order of mesh_send: they wait in the peer's queue until
 * SYNCING, the queue is written behind this node's names, and later signals behind the queue. A signal that
 * cannot be sent waits behind the queue, too, before it is refused: so the answers to one sender keep the
 * order of its signals. Each signal of the queue is judged when its turn comes: one that was queued before a
 * failure may still be sent, if the peer has come up since and the signal's connection was not lost. Only
 * signals between the two kernels pass the queue, as they pass long signals (series.c); on demand not while
 * one of them is in the queue, since "room" must not pass "hold" (kernel/flow.h). A connection
 * that is lost is first ended in the table of nodes (its epoch), then told to the user, then to the
 * subscribers and the waiters: so each of them finds the connection already gone. */
#include "agent/mesh/mesh.h"

#include "agent/mesh/handshake.h"
#include "agent/mesh/lanes.h"
#include "agent/mesh/liveness.h"
#include "agent/mesh/members.h"
#include "agent/mesh/ondemand.h"
#include "base/holds.h"
#include "base/metrics.h"
#include "base/random.h"
#include "wire/json.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* --- peers ---------------------------------------------------------------------------------------------- */

static void on_deadline(uv_timer_t *t) {
  struct peer *p = t->data;
  holds_note(p->mesh->config.holds, "the deadline of a handshake", NULL);
  struct error e = p->scan.best;
  if (!e.code)
    error_set(&e, ERR_TIMEOUT, "%s: no answer within %g s (timeout)", p->name.full,
              p->mesh->config.connect_timeout_ms / 1000.0);
  peer_event(p, PEER_DEADLINE, &(struct peer_detail){.why = &e});
}

/* Gives the place of a peer that was never met and is not wanted to another name; NULL when there is no such
 * peer. The search begins behind the place that was given last. */
static struct peer *reuse_peer(struct mesh *m, const struct nodename *name) {
  for (size_t i = 0; i < m->count; i++) {
    m->reused = (m->reused + 1) % m->count;
    struct peer *p = m->all[m->reused];
    if (p->state != PEER_DOWN || p->incarnation || p->waiters || p->queue || p->draining || p->join ||
        p->ondemand.present)
      continue;
    if (map_put(&m->peers, name->full, p)) return NULL;
    map_remove(&m->peers, p->name.full);
    members_forget(p);
    p->name = *name;
    p->failed_ms = 0;
    p->ondemand = (struct ondemand){0};
    p->lines = (struct log_limit){0};
    members_named(p);
    return p;
  }
  return NULL;
}

static struct peer *add_peer(struct mesh *m, const struct nodename *name) {
  struct peer *p = calloc(1, sizeof *p);
  struct peer **all = p ? realloc(m->all, (m->count + 1) * sizeof(struct peer *)) : NULL;
  if (all) m->all = all;
  if (!all || map_put(&m->peers, name->full, p)) {
    free(p);
    return NULL;
  }
  ring_init(&p->linked);
  p->index = m->count;
  m->all[m->count++] = p;
  p->mesh = m;
  p->name = *name;
  p->state = PEER_DOWN;
  p->queue_end = &p->queue;
  uv_timer_init(m->config.loop, &p->deadline);
  p->deadline.data = p;
  liveness_init(p);
  members_add(p);
  return p;
}

struct peer *peer_get(struct mesh *m, const struct nodename *name) {
  struct peer *p = map_get(&m->peers, name->full);
  if (p) return p;
  return m->count >= (uint64_t)limit_max(m->config.limits, LIMIT_NODES) ? reuse_peer(m, name)
                                                                        : add_peer(m, name);
}

struct peer *peer_need(struct mesh *m, const struct nodename *name, struct error *e) {
  struct peer *p = peer_get(m, name);
  if (!p) limit_error(m->config.limits, LIMIT_NODES, name->full, e);
  return p;
}

static struct transport_life life_of(const struct peer *p) {
  struct transport_life life = {0};
  if (p->transport) p->mesh->config.transport->life(p->transport, &life);
  return life;
}

static size_t waiting_for(const struct peer *p, const struct transport_life *life) {
  return p->queued + p->series.held + life->waiting;
}

static void add_use(struct mesh_use *use, size_t waiting) {
  use->nodes++;
  use->waiting += waiting;
  if (waiting > use->longest) use->longest = waiting;
}

struct mesh_use mesh_use(const struct mesh *m) {
  struct mesh_use use = {0};
  for (size_t i = 0; i < m->count; i++) {
    struct transport_life life = life_of(m->all[i]);
    add_use(&use, waiting_for(m->all[i], &life));
  }
  return use;
}

struct link_stats {
  int up;
  int64_t queue, round_trip, quiet; /* bytes, nanoseconds, nanoseconds */
  int64_t sent_bytes, received_bytes, sent, received, losses;
};

static struct link_stats link_stats(const struct peer *p) {
  struct link_stats s = {.up = p->state == PEER_UP,
                         .round_trip = -1,
                         .quiet = -1,
                         .sent_bytes = -1,
                         .received_bytes = -1,
                         .sent = p->sent + atomic_load_explicit(&p->sent_directly, memory_order_relaxed),
                         .received = p->received,
                         .losses = p->losses};
  struct transport_life life = life_of(p);
  s.queue = (int64_t)waiting_for(p, &life);
  if (!s.up) return s;
  int64_t quiet_ms = (int64_t)uv_now(p->mesh->config.loop) - life.heard_ms;
  s.quiet = quiet_ms > 0 ? quiet_ms * 1000000 : 0;
  s.round_trip = p->round_trip_ns;
  s.received_bytes = (int64_t)life.in;
  s.sent_bytes = (int64_t)(life.out + life.waiting);
  return s;
}

bool mesh_metrics(const struct mesh *m, size_t *at, size_t n, struct mesh_use *use, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct link_stats, up), METRIC_GAUGE, METRIC_COUNT, "node_link_up",
       "1: this node is connected to the node; 0: it was."},
      {METRIC(struct link_stats, queue), METRIC_GAUGE, METRIC_BYTES, "node_link_queue_bytes",
       "Data that waits to be sent to the node, or that its host has not acknowledged."},
      {METRIC(struct link_stats, round_trip), METRIC_GAUGE, METRIC_NS, "node_link_round_trip_seconds",
       "Time from the last heartbeat that the node has answered to its answer."},
      {METRIC(struct link_stats, quiet), METRIC_GAUGE, METRIC_NS, "node_link_heard_seconds",
       "Time since the node was last heard."},
      {METRIC(struct link_stats, sent), METRIC_COUNTER, METRIC_COUNT, "node_link_sent_frames_total",
       "Signals sent to the node: messages, links, monitors, calls."},
      {METRIC(struct link_stats, received), METRIC_COUNTER, METRIC_COUNT, "node_link_received_frames_total",
       "Signals received from the node."},
      {METRIC(struct link_stats, sent_bytes), METRIC_COUNTER, METRIC_BYTES, "node_link_sent_bytes_total",
       "Data sent to the node over the present link."},
      {METRIC(struct link_stats, received_bytes), METRIC_COUNTER, METRIC_BYTES,
       "node_link_received_bytes_total",
       "Data received from the node over the present link, with what TLS adds."},
      {METRIC(struct link_stats, losses), METRIC_COUNTER, METRIC_COUNT, "node_link_losses_total",
       "How often the link to the node was lost, without a farewell."}};
  static const struct metric_set set = METRIC_SET("node", rows);
  if (!*at) metrics_open(out, &set);
  for (; n && *at < m->count; n--) {
    const struct peer *p = m->all[(*at)++];
    struct link_stats stats = link_stats(p);
    add_use(use, (size_t)stats.queue);
    if (p->incarnation) metrics_put(out, p->name.full, &stats);
  }
  return *at < m->count;
}

/* --- subscribers and waiters ---------------------------------------------------------------------------- */

void mesh_subscribe(struct mesh *m, struct mesh_subscriber *s) {
  s->next = m->subscribers;
  s->pprev = &m->subscribers;
  if (s->next) s->next->pprev = &s->next;
  m->subscribers = s;
}

void mesh_unsubscribe(struct mesh_subscriber *s) {
  *s->pprev = s->next;
  if (s->next) s->next->pprev = s->pprev;
}

bool peer_may_log(struct mesh *m, struct peer *p) {
  bool good = log_admits(p ? &p->lines : &m->refusals, (int64_t)uv_now(m->config.loop));
  if (!good) m->left_out = true;
  return good;
}

/* May it be logged that the peer is up, or down?  Those of a large cluster that have no link are many. */
static bool may_log_state(struct peer *p) {
  struct mesh *m = p->mesh;
  bool is_distant = m->config.on_demand && p->state == PEER_DOWN;
  if (!is_distant || log_admits(&m->comings, (int64_t)uv_now(m->config.loop))) return peer_may_log(m, p);
  m->left_out = true;
  return false;
}

void peer_tell(struct peer *p, const char *why) {
  struct mesh *m = p->mesh;
  const char *node = p->name.full;
  if (p->told_up == !why) return;
  p->told_up = !why;
  if (may_log_state(p)) log_line(m->config.log, why ? "%s is down: %s" : "%s is up%s", node, why ? why : "");
  for (struct mesh_subscriber *s = m->subscribers, *next; s; s = next) {
    next = s->next;
    s->event(s->data, node, why);
  }
}

static int add_waiter(struct peer *p, mesh_done *done, void *data) {
  struct waiter *w = malloc(sizeof *w);
  if (!w) return ERR_NOMEM;
  *w = (struct waiter){p->waiters, done, data};
  p->waiters = w;
  return 0;
}

void peer_tell_waiters(struct peer *p, const struct error *why) {
  struct waiter *w = p->waiters;
  npid kernel = why ? NPID_NONE : npid_make(p->incarnation, 0);
  uv_timer_stop(&p->deadline);
  p->waiters = NULL;
  while (w) {
    struct waiter *next = w->next;
    w->done(w->data, why, kernel);
    free(w);
    w = next;
  }
}

void peer_check_joined(struct peer *p) {
  if (p->state != PEER_UP || p->joins) return;
  nodetab_set_up(p->mesh->config.nodes, p->incarnation, true);
  peer_tell_waiters(p, NULL);
}

/* --- signals to a peer ---------------------------------------------------------------------------------- */

static void undeliverable(struct mesh *m, struct signal *s, int code, const char *reason) {
  m->events->undeliverable(m->data, s, code, reason);
}

bool peer_write_text(struct peer *p, const struct buf *lines) {
  int code =
      buf_ok(lines) ? p->mesh->config.transport->write(p->transport, lines->data, lines->len) : ERR_NOMEM;
  if (code) peer_fail(p, code, err_sentence(code));
  return !code;
}

bool peer_write_json(struct peer *p, json_t *line) {
  struct buf text = BUF_INIT;
  json_line(&text, line);
  json_decref(line);
  bool good = peer_write_text(p, &text);
  buf_finish(&text);
  return good;
}

/* When the write fails, the connection is given up, so that the peer never gets later signals without this
 * one. */
void peer_write(struct peer *p, struct signal *s) {
  struct mesh *m = p->mesh;
  struct buf *line = &m->line;
  int code = frame_write(m->config.nodes, s, line);
  if (!code) code = m->config.transport->write(p->transport, line->data, line->len);
  buf_clear(line);
  buf_shrink(line);
  if (!code) {
    peer_count(p, s, true);
    signal_free(s);
    return;
  }
  peer_fail(p, code, err_sentence(code));
  undeliverable(m, s, code, "noconnection");
}

void peer_count(struct peer *p, const struct signal *s, bool sent) {
  p->sent += sent;
  p->received += !sent;
  ondemand_signal(p, s);
}

void peer_check_busy(struct peer *p) {
  size_t queued_max = p->busy ? TRANSPORT_QUEUE_HIGH / 2 : TRANSPORT_QUEUE_HIGH;
  bool busy = p->transport_busy || p->series.busy || p->queued > queued_max;
  if (p->state < PEER_SYNCING || busy == p->busy) return;
  p->busy = busy;
  p->mesh->events->busy(p->mesh->data, p->incarnation, busy);
}

static bool is_linked(const struct peer *p, const struct signal *s) {
  return p->state >= PEER_SYNCING && p->incarnation == npid_incarnation(s->to);
}

static void set_busy(struct mesh *m, const struct signal *s, bool busy) {
  m->events->busy(m->data, npid_incarnation(s->to), busy);
}

void peer_close_lane(struct peer *p) {
  if (p->lane) lane_close(p->mesh->config.lanes, p->lane);
  p->lane = NULL;
}

/* Opens the lane when nothing waits for the peer.  On demand there is none: the mesh has to see each signal.
 */
static void open_lane(struct peer *p) {
  const struct mesh_config *c = &p->mesh->config;
  if (p->lane || !c->lanes || c->on_demand || p->state < PEER_SYNCING || p->queue || !series_sends_none(p))
    return;
  struct lane *lane = c->transport->lane(p->transport);
  if (!lane) return;
  lane_open(c->lanes, lane, p->incarnation, &p->sent_directly);
  if (lane->open) p->lane = lane;
}

static void enqueue(struct peer *p, struct signal *s) {
  peer_close_lane(p);
  s->next = NULL;
  *p->queue_end = s;
  p->queue_end = &s->next;
  p->queued += signal_weight(s);
  p->queued_free += series_is_free(s);
  if (is_linked(p, s))
    peer_check_busy(p);
  else if (p->queued > TRANSPORT_QUEUE_HIGH)
    set_busy(p->mesh, s, true);
}

/* Takes the oldest signal off the queue.  Senders that wait for room in the queue are resumed. */
static struct signal *dequeue(struct peer *p) {
  struct signal *s = p->queue;
  p->queue = s->next;
  if (!p->queue) p->queue_end = &p->queue;
  p->queued -= signal_weight(s);
  p->queued_free -= series_is_free(s);
  s->next = NULL;
  if (is_linked(p, s))
    peer_check_busy(p);
  else
    set_busy(p->mesh, s, false);
  return s;
}

/* True when this signal is worth a new link. Unlinks, demonitors, exits of links, DOWNs and replies are not,
 * unless the connection goes on: the links, monitors and calls that they refer to ended with it. */
static bool needs_connection(const struct peer *p, const struct signal *s) {
  if (p->ondemand.dormant) return true;
  switch (s->kind) {
  case SIGNAL_MESSAGE:
  case SIGNAL_URGENT:
  case SIGNAL_EXIT:
  case SIGNAL_LINK:
  case SIGNAL_MONITOR:
  case SIGNAL_LEADER:
  case SIGNAL_CALL: return true;
  default: return false;
  }
}

static bool failed_lately(const struct peer *p) {
  return p->failed_ms && (int64_t)uv_now(p->mesh->config.loop) - p->failed_ms < MESH_RETRY_MS;
}

static void ignore_outcome(void *data, const struct error *e, npid kernel) {
  (void)data, (void)e, (void)kernel;
}

/* What is to be done with a signal whose turn it is. */
enum fate {
  FATE_SENT,     /* the link is up */
  FATE_WAITS,    /* for the link */
  FATE_LOST,     /* the connection for which it was sent is lost */
  FATE_NOBODY,   /* it is to an earlier incarnation of a connected node */
  FATE_HOPELESS, /* there is no link, and none is sought for it */
};

/* Is the peer down, and not, on demand, to be dialled as soon as fewer others are? */
static bool is_away(const struct peer *p) {
  return p->state == PEER_DOWN && !(p->pprev_dial && p->mesh->config.on_demand);
}

/* p: NULL, where there is no room for the peer. */
static enum fate fate_of(const struct mesh *m, const struct peer *p, const struct signal *s) {
  if (s->epoch != nodetab_epoch(m->config.nodes, npid_incarnation(s->to))) return FATE_LOST;
  if (!p) return FATE_HOPELESS;
  if (ondemand_holds(p)) return FATE_WAITS;
  if (p->state >= PEER_SYNCING) return is_linked(p, s) ? FATE_SENT : FATE_NOBODY;
  bool hopeless = is_away(p) && (failed_lately(p) || !needs_connection(p, s));
  return hopeless || m->stopping ? FATE_HOPELESS : FATE_WAITS;
}

/* Sends the signal (consumed), or gives it up. */
static void settle(struct mesh *m, struct peer *p, struct signal *s, enum fate fate) {
  if (fate == FATE_SENT) {
    series_send(p, s);
    open_lane(p);
    return;
  }
  undeliverable(m, s, fate == FATE_LOST ? ERR_LOST : ERR_NO_PROCESS,
                fate == FATE_NOBODY ? "noproc" : "noconnection");
}

/* Connects to a peer that is down and for which a signal waits. */
static void want_link(struct peer *p) {
  if (is_away(p)) mesh_connect(p->mesh, &p->name, ignore_outcome, NULL);
}

static bool drain_step(struct errand *e, int *left) {
  struct peer *p = (struct peer *)((char *)e - offsetof(struct peer, drain));
  for (; p->queue && *left > 0; *left -= MESH_DRAIN) {
    enum fate fate = fate_of(p->mesh, p, p->queue);
    if (fate == FATE_WAITS) want_link(p);
    if (fate == FATE_WAITS && !is_away(p)) return true;
    settle(p->mesh, p, dequeue(p), fate);
  }
  return !p->queue;
}

static void drain_done(struct errand *e) {
  struct peer *p = (struct peer *)((char *)e - offsetof(struct peer, drain));
  p->draining = false;
}

static void drain(struct peer *p) {
  if (!p->queue || p->draining) return;
  p->draining = true;
  p->drain =
      (struct errand){.name = "signals that waited for a node", .step = drain_step, .done = drain_done};
  errands_begin(&p->mesh->errands, &p->drain);
}

void peer_send_queue(struct peer *p) {
  p->busy = p->queued > TRANSPORT_QUEUE_HIGH;
  p->mesh->events->busy(p->mesh->data, p->incarnation, p->busy);
  drain(p);
}

/* The peer of the node to which a signal goes, which this node may never have met: the pid came from another
 * one.  NULL: there is no room for it. */
static struct peer *peer_of(struct mesh *m, const struct signal *s) {
  const char *node = nodetab_name(m->config.nodes, npid_incarnation(s->to));
  struct peer *p = map_get(&m->peers, node);
  struct nodename name;
  struct error e;
  return p || m->stopping || nodename_parse(node, &name, &e) ? p : peer_get(m, &name);
}

void mesh_send(struct mesh *m, struct signal *s) {
  struct nodetab *nodes = m->config.nodes;
  uint32_t incarnation = npid_incarnation(s->to);
  /* an earlier incarnation of this node, or a node for which the table of nodes had no room */
  if (!nodetab_node_id(nodes, incarnation) || incarnation == NODETAB_NOWHERE) {
    undeliverable(m, s, ERR_NO_PROCESS, "noproc");
    return;
  }
  struct peer *p = peer_of(m, s);
  bool passes = p && is_linked(p, s) && series_is_free(s) && !(m->config.on_demand && p->queued_free);
  bool behind = p && p->queue && !passes;
  enum fate fate = behind ? FATE_WAITS : fate_of(m, p, s);
  bool full = p && p->queued > (uint64_t)limit_max(m->config.limits, LIMIT_PEER_QUEUE);
  if (!p || fate != FATE_WAITS || full) {
    settle(m, p, s, fate == FATE_WAITS ? FATE_HOPELESS : fate);
    return;
  }
  enqueue(p, s);
  if (p->draining) return;
  want_link(p);
  if (is_away(p)) drain(p);
}

/* --- up and down ---------------------------------------------------------------------------------------- */

void peer_begin_deadline(struct peer *p) {
  uv_timer_start(&p->deadline, on_deadline, (uint64_t)p->mesh->config.connect_timeout_ms, 0);
}

void peer_leave_down(struct peer *p) {
  const struct mesh_config *c = &p->mesh->config;
  const char *own_host = strchr(c->self, '@') + 1;
  bool here = !strcmp(own_host, p->name.host);
  members_leave_down(p);
  ondemand_leave_down(p);
  p->direct = p->place.address[0] && p->place.port && (!p->name.port || p->name.port == p->place.port);
  p->direct_failed = (struct error){0};
  scan_start(&p->scan, p->name.port, p->place.port, here ? c->port : 0);
  peer_begin_deadline(p);
}

void peer_enter_up(struct peer *p) {
  p->mesh->links++;
  members_up(p);
  if (ondemand_up(p)) peer_tell(p, NULL);
  peer_check_joined(p);
  members_told(p);
}

/* Cuts "two@rane: " off "two@rane: connection reset": the caller prints the name itself. */
static const char *without_name(const struct peer *p, const char *text) {
  size_t n = strlen(p->name.full);
  return strncmp(text, p->name.full, n) != 0 || strncmp(text + n, ": ", 2) != 0 ? text : text + n + 2;
}

void peer_end_connection(struct peer *p, uint32_t incarnation) {
  struct mesh *m = p->mesh;
  uint32_t epoch = nodetab_part(m->config.nodes, incarnation);
  ondemand_untie(p);
  m->events->down(m->data, incarnation, epoch, "noconnection");
}

/* Signals may have been sent over a connection that is SYNCING, UP or dormant, which may have linked
 * processes. */
void peer_enter_down(struct peer *p, enum peer_state from, enum peer_event event, const struct error *why) {
  struct mesh *m = p->mesh;
  bool dormant = event == PEER_DORMANT, was_dormant = p->ondemand.dormant;
  bool lost = !dormant && (from >= PEER_SYNCING || was_dormant);
  bool told = p->told_up && !dormant && (from == PEER_UP || was_dormant || !p->ondemand.present);
  peer_close_lane(p);
  nodetab_set_up(m->config.nodes, p->incarnation, false);
  m->links -= from == PEER_UP;
  p->losses += from >= PEER_SYNCING && event == PEER_LOST;
  p->failed_ms = from == PEER_UP ? 0 : (int64_t)uv_now(m->config.loop);
  p->busy = p->transport_busy = false;
  series_drop(p);
  members_down(p, from, event, why);
  ondemand_down(p, lost, dormant);
  p->joins = 0;
  if (lost) peer_end_connection(p, p->incarnation);
  if (told) peer_tell(p, without_name(p, error_text(why)));
  if (!dormant) peer_tell_waiters(p, why);
  members_told(p);
  if (is_away(p)) drain(p);
}

/* --- connecting and parting ----------------------------------------------------------------------------- */

static struct peer *find_peer(struct mesh *m, const struct nodename *name, struct error *e) {
  if (m->stopping) {
    error_set(e, ERR_BUSY, "%s is stopping", m->config.self);
    return NULL;
  }
  return peer_need(m, name, e);
}

void mesh_connect(struct mesh *m, const struct nodename *to, mesh_done *done, void *data) {
  struct error e = {0};
  if (!strcmp(to->full, m->config.self)) {
    done(data, NULL, NPID_KERNEL);
    return;
  }
  struct peer *p = find_peer(m, to, &e);
  if (p && p->state == PEER_UP && !p->joins) {
    done(data, NULL, npid_make(p->incarnation, 0));
    return;
  }
  if (p && add_waiter(p, done, data)) error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (!p || e.code) {
    done(data, &e, NPID_NONE);
    return;
  }
  if (p->state == PEER_DOWN) p->name.port = to->port;
  p->parted = 0;
  if (m->config.on_demand && p->state == PEER_DOWN)
    members_dial(p);
  else
    peer_event(p, PEER_WANTED, &(struct peer_detail){0});
}

static void part(struct peer *p, const char *reason) {
  struct error e;
  error_set(&e, ERR_LOST, "%s: %s", p->name.full, reason);
  peer_event(p, PEER_PART, &(struct peer_detail){.why = &e, .reason = reason});
}

bool mesh_disconnect(struct mesh *m, const char *node, const char *reason) {
  struct peer *p = map_get(&m->peers, node);
  if (!p || p->state != PEER_UP) return false;
  part(p, reason);
  return true;
}

/* --- members -------------------------------------------------------------------------------------------- */

/* Was it met, or is it present? */
static bool is_known(const struct peer *p) {
  return p->incarnation || p->ondemand.present;
}

/* The incarnation that was met last is that of the peer, unless the peer is up with another creation. */
static struct member member_of(const struct peer *p) {
  const struct nodetab *nodes = p->mesh->config.nodes;
  uint32_t creation = p->incarnation ? nodetab_creation(nodes, p->incarnation) : 0;
  bool met =
      p->incarnation && (p->state >= PEER_SYNCING || !p->told_up || creation == p->ondemand.up_creation);
  if (!met && p->ondemand.present) creation = p->ondemand.creation;
  bool told = p->ondemand.present && p->state == PEER_DOWN;
  return (struct member){
      .node = p->name.full,
      .kernel = met ? npid_make(p->incarnation, 0) : NPID_NONE,
      .creation = creation,
      .id = met ? nodetab_node_id(nodes, p->incarnation) : 0,
      .up = p->told_up,
      .linked = p->state == PEER_UP,
      .missing = !p->told_up && members_wanted(p),
      .suspected = p->state == PEER_UP && p->suspected,
      .address = told ? p->ondemand.place.address : p->place.address,
      .port = told ? p->ondemand.place.port : p->place.port,
      .trouble = p->told_up || !p->trouble.code ? "" : without_name(p, error_text(&p->trouble)),
      .retry_ms = (!p->dials_only || p->via) && uv_is_active((const uv_handle_t *)&p->retry)
                      ? (int64_t)uv_timer_get_due_in(&p->retry)
                      : -1,
      .via = p->state == PEER_UP && p->relay ? p->relay->name.full : "",
      .tags = p->tags,
      .rival = p->rival_due ? "" : p->rival};
}

void mesh_each(struct mesh *m, void (*fn)(void *data, const struct member *member), void *data) {
  for (size_t i = 0; i < m->count; i++) {
    if (!is_known(m->all[i])) continue;
    struct member member = member_of(m->all[i]);
    fn(data, &member);
  }
}

bool mesh_walk(struct mesh *m, size_t *at, size_t n, void (*fn)(void *data, const struct member *member),
               void *data) {
  for (; n && *at < m->count; n--) {
    struct member member = member_of(m->all[(*at)++]);
    fn(data, &member);
  }
  return *at < m->count;
}

bool mesh_tried(struct mesh *m, const char *node, struct member *out) {
  const struct peer *p = map_get(&m->peers, node);
  if (p) *out = member_of(p);
  return p;
}

bool mesh_is_linked(const struct mesh *m, const char *address, uint16_t port) {
  for (size_t i = 0; i < m->count; i++) {
    const struct peer *p = m->all[i];
    /* the address of a peer behind a relay may be one of another network */
    if (p->state == PEER_UP && !p->relay && p->place.port == port && !strcmp(p->place.address, address))
      return true;
  }
  return false;
}

bool mesh_find(struct mesh *m, const char *node, struct member *out) {
  const struct peer *p = map_get(&m->peers, node);
  if (!p || !is_known(p)) return false;
  *out = member_of(p);
  return true;
}

/* --- the mesh's life ------------------------------------------------------------------------------------ */

static void on_heartbeat(uv_timer_t *t) {
  const struct mesh *m = t->data;
  holds_note(m->config.holds, "heartbeats", NULL);
  liveness_beat(t->data);
}

int mesh_new(const struct mesh_config *config, const struct mesh_events *events, void *data,
             struct mesh **out) {
  struct mesh *m = calloc(1, sizeof *m);
  if (!m) return ERR_NOMEM;
  m->config = *config;
  if (m->config.on_demand) m->config.mesh = false;
  if (!m->config.connect_timeout_ms) m->config.connect_timeout_ms = MESH_CONNECT_TIMEOUT_MS;
  m->events = events;
  m->data = data;
  m->frames.nodes = config->nodes;
  m->random = config->seed ? config->seed : random_number();
  m->life = m->random & INT64_MAX;
  members_init(m);
  ondemand_init(m);
  errands_init(&m->errands, config->loop, config->holds);
  uint64_t ms = (uint64_t)config->heartbeat_ms;
  uv_timer_init(config->loop, &m->heartbeat);
  m->heartbeat.data = m;
  uv_timer_start(&m->heartbeat, on_heartbeat, ms, ms);
  *out = m;
  return 0;
}

uint64_t mesh_life(const struct mesh *m) {
  return m->life;
}

/* Parts from a peer, or gives up one that was not dialled yet. */
static void leave(struct peer *p) {
  struct error e;
  part(p, MESH_STOPPED);
  if (p->state != PEER_DOWN || !p->pprev_dial) return;
  members_undial(p);
  drain(p);
  peer_tell_waiters(p, error_set(&e, ERR_LOST, "%s: " MESH_STOPPED, p->name.full) ? &e : NULL);
}

void mesh_stop(struct mesh *m) {
  m->stopping = true;
  for (size_t i = 0; i < m->count; i++) leave(m->all[i]);
}

void mesh_finish(struct mesh *m) {
  if (!m) return;
  mesh_stop(m);
  errands_finish(&m->errands);
  uv_close((uv_handle_t *)&m->heartbeat, NULL);
  members_finish(m);
  ondemand_finish(m);
  for (size_t i = 0; i < m->count; i++) {
    uv_close((uv_handle_t *)&m->all[i]->deadline, NULL);
    uv_close((uv_handle_t *)&m->all[i]->liveness, NULL);
    members_close(m->all[i]);
    ondemand_untie(m->all[i]);
  }
}

void mesh_free(struct mesh *m) {
  if (!m) return;
  for (size_t i = 0; i < m->count; i++) {
    free(m->all[i]->via);
    free(m->all[i]);
  }
  free(m->all);
  frames_finish(&m->frames);
  buf_finish(&m->line);
  map_finish(&m->peers);
  free(m);
}
