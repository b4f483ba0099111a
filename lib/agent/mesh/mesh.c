/* Invariant: there is one struct peer for each node name that this node has heard of.  It is kept until
 * mesh_free; when the table is full, the place of a peer that was never met is given to another name.  Only
 * handshake.c changes a peer's state.
 *
 * Orderings: a connection that is lost is first ended in the table of nodes (its epoch), then told to the
 * user, then to the subscribers and the waiters: so each of them finds the connection already gone. */
#include "agent/mesh/mesh.h"

#include "agent/mesh/handshake.h"
#include "agent/mesh/liveness.h"
#include "agent/mesh/members.h"
#include "agent/mesh/ondemand.h"
#include "base/holds.h"
#include "base/random.h"

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

const char *peer_without_name(const struct peer *p, const char *text) {
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
  if (told) peer_tell(p, peer_without_name(p, error_text(why)));
  if (!dormant) peer_tell_waiters(p, why);
  members_told(p);
  peer_refuse_queue(p);
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
  peer_refuse_queue(p);
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
