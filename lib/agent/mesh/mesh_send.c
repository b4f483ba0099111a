/* Sends signals to peers.  Invariant: a queue that is not empty waits for the handshake to end, or to begin
 * (in the queue of dials), or for the answer of a peer that was asked to close the link, or is being drained:
 * in DOWN its signals are refused, and from SYNCING on they are sent, a slice a turn of the loop.
 *
 * Orderings: signals to one peer go out in the order of mesh_send: they wait in the peer's queue until
 * SYNCING, the queue is written behind this node's names, and later signals behind the queue.  A signal that
 * cannot be sent waits behind the queue, too, before it is refused: so the answers to one sender keep the
 * order of its signals.  Each signal of the queue is judged when its turn comes: one that was queued before a
 * failure may still be sent, if the peer has come up since and the signal's connection was not lost.  Only
 * signals between the two kernels pass the queue, as they pass long signals (series.c); on demand not while
 * one of them is in the queue, since "room" must not pass "hold" (kernel/flow.h). */
#include "agent/mesh/mesh.h"

#include "agent/mesh/handshake.h"
#include "agent/mesh/lanes.h"
#include "agent/mesh/ondemand.h"
#include "wire/json.h"

#include <stddef.h>

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

int peer_write_line(struct peer *p, const char *key, json_t *value) {
  struct buf line = BUF_INIT;
  json_t *v = json_pack("{s:o}", key, value);
  if (v) json_line(&line, v);
  json_decref(v);
  int code =
      !v || !buf_ok(&line) ? ERR_NOMEM : p->mesh->config.transport->write(p->transport, line.data, line.len);
  buf_finish(&line);
  return code;
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

void peer_refuse_queue(struct peer *p) {
  if (is_away(p)) drain(p);
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
  peer_refuse_queue(p);
}
