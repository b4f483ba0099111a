/* Invariant: one struct peer for each node name ever met, kept until the end; its state changes only through
 * peer_begin, peer_up and peer_down here, and to SYNCING in meet.c. */
#include "agent/mesh/mesh.h"

#include "agent/mesh/peer.h"
#include "base/buf.h"
#include "base/clock.h"
#include "wire/frame.h"

#include <stdlib.h>
#include <string.h>

/* --- peers ---------------------------------------------------------------------------------------------- */

static void on_deadline(uv_timer_t *t);

/* A peer that was looked for and never found makes room for another. */
static struct peer *peer_reuse(struct mesh *m, const struct nodename *name) {
  for (size_t i = 0; i < m->count; i++) {
    struct peer *p = m->order[i];
    if (p->state != PEER_DOWN || p->incarnation || p->waiters || p->queue) continue;
    map_remove(&m->peers, p->name.full);
    if (map_put(&m->peers, name->full, p)) return NULL;
    p->name = *name;
    p->port = 0;
    return p;
  }
  return NULL;
}

struct peer *peer_get(struct mesh *m, const struct nodename *name) {
  struct peer *p = map_get(&m->peers, name->full);
  if (p) return p;
  if (m->count == MESH_PEERS_MAX) return peer_reuse(m, name);
  if (!(p = calloc(1, sizeof *p))) return NULL;
  struct peer **order = realloc(m->order, (m->count + 1) * sizeof(struct peer *));
  if (order) m->order = order;
  if (!order || map_put(&m->peers, name->full, p)) {
    free(p);
    return NULL;
  }
  m->order[m->count++] = p;
  p->mesh = m;
  p->name = *name;
  p->queue_end = &p->queue;
  uv_timer_init(m->config.loop, &p->deadline);
  p->deadline.data = p;
  return p;
}

static struct peer *peer_of(struct mesh *m, uint32_t incarnation) {
  return map_get(&m->peers, nodetab_name(m->config.nodes, incarnation));
}

static void tell(struct mesh *m, const char *node, const char *why) {
  log_line(m->config.log, why ? "%s is down: %s" : "%s is up%s", node, why ? why : "");
  for (struct mesh_subscriber *w = m->subscribers, *next; w; w = next) {
    next = w->next;
    w->event(w->data, node, why);
  }
}

/* Answers everyone who waits for the peer. */
static void answer_waiters(struct peer *p, const struct error *e) {
  uv_timer_stop(&p->deadline);
  struct waiter *w = p->waiters;
  p->waiters = NULL;
  while (w) {
    struct waiter *next = w->next;
    w->done(w->data, e, e ? NPID_NONE : npid_make(p->incarnation, 0));
    free(w);
    w = next;
  }
}

static int add_waiter(struct peer *p, mesh_done *done, void *data) {
  struct waiter *w = malloc(sizeof *w);
  if (!w) return ERR_NOMEM;
  *w = (struct waiter){p->waiters, done, data};
  p->waiters = w;
  return 0;
}

/* --- signals to it -------------------------------------------------------------------------------------- */

static void undeliverable(struct mesh *m, struct signal *s, int code, const char *reason) {
  m->events->undeliverable(m->data, s, code, reason);
}

static void write_frame(struct peer *p, struct signal *s) {
  struct mesh *m = p->mesh;
  struct buf *line = &m->line;
  int code = frame_write(m->config.nodes, s, line);
  if (!code) code = m->config.transport->write(p->link, line->data, line->len);
  buf_clear(line);
  buf_shrink(line);
  if (!code) {
    signal_free(s);
    return;
  }
  /* Signals are lost with the connection only, where that is told, and never one from among others. */
  peer_fail(p, code, err_sentence(code));
  undeliverable(m, s, code, "noconnection");
}

/* Those who send to where it goes wait, or no longer. */
static void set_busy(struct mesh *m, const struct signal *s, bool busy) {
  m->events->busy(m->data, npid_incarnation(s->to), busy);
}

static void empty_queue(struct peer *p, int code, const char *reason) {
  struct mesh *m = p->mesh;
  struct signal *s = p->queue;
  p->queue = NULL;
  p->queue_end = &p->queue;
  p->queued = 0;
  for (const struct signal *q = s; q; q = q->next) set_busy(m, q, false);
  while (s) {
    struct signal *next = s->next;
    if (code)
      undeliverable(m, s, code, reason);
    else
      mesh_send(m, s);
    s = next;
  }
}

void peer_flush(struct peer *p) {
  empty_queue(p, 0, NULL);
}

static void on_wanted(void *data, const struct error *e, npid kernel) {
  (void)data, (void)e, (void)kernel;
}

/* What only ends, undoes or answers something has nothing to do where there is no connection. */
static bool wants_connection(const struct signal *s) {
  switch (s->kind) {
  case SIGNAL_MESSAGE:
  case SIGNAL_EXIT:
  case SIGNAL_LINK:
  case SIGNAL_MONITOR:
  case SIGNAL_LEADER:
  case SIGNAL_CALL: return true;
  default: return false;
  }
}

void mesh_send(struct mesh *m, struct signal *s) {
  struct nodetab *nodes = m->config.nodes;
  uint32_t incarnation = npid_incarnation(s->to);
  if (!nodetab_node_id(nodes, incarnation)) { /* of an earlier life of ours */
    undeliverable(m, s, ERR_NO_PROCESS, "noproc");
    return;
  }
  if (s->epoch != nodetab_epoch(nodes, incarnation)) { /* lost with its connection */
    undeliverable(m, s, ERR_LOST, "noconnection");
    return;
  }
  struct peer *p = peer_of(m, incarnation);
  bool current = p && p->incarnation == incarnation;
  if (current && p->state >= PEER_SYNCING) {
    write_frame(p, s);
    return;
  }
  if (!p) { /* a pid we were told of, of a node we never met */
    struct nodename name;
    struct error e;
    if (!nodename_parse(nodetab_name(nodes, incarnation), &name, &e)) p = peer_get(m, &name);
  }
  bool failed = p && p->failed_ns && clock_ns() - p->failed_ns < (int64_t)MESH_RETRY_MS * 1000000;
  bool hopeless = p && p->state == PEER_DOWN && (failed || !wants_connection(s));
  if (!p || hopeless || m->stopping || p->queued > TRANSPORT_QUEUE_MAX || p->state >= PEER_SYNCING) {
    undeliverable(m, s, ERR_NO_PROCESS, p && p->state >= PEER_SYNCING ? "noproc" : "noconnection");
    return;
  }
  s->next = NULL;
  *p->queue_end = s;
  p->queue_end = &s->next;
  p->queued += signal_weight(s);
  if (p->queued > TRANSPORT_QUEUE_HIGH) set_busy(m, s, true);
  mesh_connect(m, &p->name, on_wanted, NULL);
}

/* --- up and down ---------------------------------------------------------------------------------------- */

/* "two@rane: connection reset" says its name already where a name stands beside it. */
static const char *without_name(const struct peer *p, const char *text) {
  size_t n = strlen(p->name.full);
  return strncmp(text, p->name.full, n) != 0 || strncmp(text + n, ": ", 2) != 0 ? text : text + n + 2;
}

void peer_down(struct peer *p, const struct error *e) {
  struct mesh *m = p->mesh;
  bool was_up = p->state == PEER_UP, spoke = p->state >= PEER_SYNCING;
  struct transport *l = p->link;
  p->link = NULL;
  m->config.transport->close(l);
  m->config.transport->withdraw(p->offer);
  p->offer = NULL;
  if (!was_up) p->port = 0; /* where it was looked for it is not */
  p->failed_ns = was_up ? 0 : clock_ns();
  p->state = PEER_DOWN;
  p->ready = p->greeted = false;
  p->joins = 0;
  peer_answer_offer(p, e);
  if (spoke) { /* ties to it may have gone out */
    uint32_t epoch = nodetab_part(m->config.nodes, p->incarnation);
    m->events->down(m->data, p->incarnation, epoch, "noconnection");
  }
  if (was_up) tell(m, p->name.full, without_name(p, error_text(e)));
  empty_queue(p, ERR_LOST, "noconnection");
  answer_waiters(p, e);
}

void peer_fail(struct peer *p, int code, const char *what) {
  struct error e;
  error_set(&e, code, "%s: %s", p->name.full, what);
  peer_down(p, &e);
}

void peer_up(struct peer *p) {
  p->state = PEER_UP;
  tell(p->mesh, p->name.full, NULL);
  peer_check_up(p);
}

void peer_begin(struct peer *p) {
  p->state = PEER_CONNECTING;
  scan_start(&p->scan, p->name.port, p->port);
  p->reset = false;
  uv_timer_start(&p->deadline, on_deadline, (uint64_t)p->mesh->config.connect_timeout_ms, 0);
}

static void on_deadline(uv_timer_t *t) {
  struct peer *p = t->data;
  struct error e;
  if (p->state == PEER_UP) { /* up; only some of its members are slow */
    answer_waiters(p, NULL);
    return;
  }
  if (p->scan.best.code)
    e = p->scan.best;
  else
    error_set(&e, ERR_TIMEOUT, "%s: no answer within %g s (timeout)", p->name.full,
              p->mesh->config.connect_timeout_ms / 1000.0);
  peer_down(p, &e);
}

void peer_check_up(struct peer *p) {
  if (p->state == PEER_UP && !p->joins) answer_waiters(p, NULL);
}

/* --- connecting and parting ----------------------------------------------------------------------------- */

void mesh_connect(struct mesh *m, const struct nodename *to, mesh_done *done, void *data) {
  struct error e = {0};
  struct peer *p = NULL;
  if (!strcmp(to->full, m->config.self)) {
    done(data, NULL, NPID_KERNEL);
    return;
  }
  if (m->stopping)
    error_set(&e, ERR_BUSY, "%s is stopping", m->config.self);
  else if (!(p = peer_get(m, to)))
    error_set(&e, ERR_BUSY, "no room for more than %d nodes", MESH_PEERS_MAX);
  if (p && p->state == PEER_UP && !p->joins) {
    done(data, NULL, npid_make(p->incarnation, 0));
    return;
  }
  if (p && !e.code && add_waiter(p, done, data)) error_set(&e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  if (e.code || !p) {
    done(data, &e, NPID_NONE);
    return;
  }
  if (p->state != PEER_DOWN) return;
  p->name.port = to->port;
  peer_begin(p);
  peer_offer(p);
}

/* Parts from a peer in order: its node hears why. */
static void part(struct peer *p, const char *reason) {
  struct error e;
  struct transport *l = p->link;
  error_set(&e, ERR_LOST, "%s: %s", p->name.full, reason);
  if (p->state >= PEER_SYNCING) {
    struct buf line = BUF_INIT;
    buf_printf(&line, "{\"bye\":\"%s\"}\n", reason);
    p->link = NULL;
    p->mesh->config.transport->part(l, line.data, line.len);
    buf_finish(&line);
  }
  peer_down(p, &e);
}

bool mesh_disconnect(struct mesh *m, const char *node, const char *reason) {
  struct peer *p = map_get(&m->peers, node);
  if (!p || p->state != PEER_UP) return false;
  part(p, reason);
  return true;
}

/* --- members -------------------------------------------------------------------------------------------- */

static struct member member_of(const struct peer *p) {
  const struct nodetab *nodes = p->mesh->config.nodes;
  return (struct member){.node = p->name.full,
                         .kernel = npid_make(p->incarnation, 0),
                         .creation = nodetab_creation(nodes, p->incarnation),
                         .id = nodetab_node_id(nodes, p->incarnation),
                         .up = p->state == PEER_UP};
}

void mesh_each(struct mesh *m, void (*fn)(void *data, const struct member *member), void *data) {
  for (size_t i = 0; i < m->count; i++) {
    if (!m->order[i]->incarnation) continue;
    struct member member = member_of(m->order[i]);
    fn(data, &member);
  }
}

bool mesh_find(struct mesh *m, const char *node, struct member *out) {
  const struct peer *p = map_get(&m->peers, node);
  if (!p || !p->incarnation) return false;
  *out = member_of(p);
  return true;
}

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

struct mesh_subscriber *mesh_subscribers(struct mesh *m) {
  return m ? m->subscribers : NULL;
}

/* --- lifecycle ------------------------------------------------------------------------------------------ */

static void on_heartbeat(uv_timer_t *t) {
  struct mesh *m = t->data;
  for (size_t i = 0; i < m->count; i++)
    if (m->order[i]->link && m->order[i]->state >= PEER_SYNCING)
      m->config.transport->tick(m->order[i]->link, m->config.heartbeat_ms);
}

int mesh_new(const struct mesh_config *config, const struct mesh_events *events, void *data,
             struct mesh **out) {
  struct mesh *m = calloc(1, sizeof *m);
  if (!m) return ERR_NOMEM;
  m->config = *config;
  if (!m->config.connect_timeout_ms) m->config.connect_timeout_ms = MESH_CONNECT_TIMEOUT_MS;
  m->events = events;
  m->data = data;
  m->frames.nodes = config->nodes;
  uint64_t ms = (uint64_t)config->heartbeat_ms;
  uv_timer_init(config->loop, &m->heartbeat);
  m->heartbeat.data = m;
  uv_timer_start(&m->heartbeat, on_heartbeat, ms, ms);
  *out = m;
  return 0;
}

void mesh_stop(struct mesh *m) {
  m->stopping = true;
  for (size_t i = 0; i < m->count; i++)
    if (m->order[i]->state != PEER_DOWN) part(m->order[i], "stopped");
}

void mesh_finish(struct mesh *m) {
  if (!m) return;
  mesh_stop(m);
  uv_close((uv_handle_t *)&m->heartbeat, NULL);
  for (size_t i = 0; i < m->count; i++) uv_close((uv_handle_t *)&m->order[i]->deadline, NULL);
}

void mesh_free(struct mesh *m) {
  if (!m) return;
  for (size_t i = 0; i < m->count; i++) free(m->order[i]);
  free(m->order);
  frames_finish(&m->frames);
  buf_finish(&m->line);
  map_finish(&m->peers);
  free(m);
}
