/* Answers what the node asks of the mesh: its members, its links, and what they cost.  Changes nothing. */
#include "agent/mesh/mesh.h"

#include "agent/mesh/members.h"
#include "base/metrics.h"

#include <string.h>

/* --- links ---------------------------------------------------------------------------------------------- */

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
      .trouble = p->told_up || !p->trouble.code ? "" : peer_without_name(p, error_text(&p->trouble)),
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
