/* Invariant: one struct peer for each node name ever met, kept until the end; its state changes only through
 * peer_begin, peer_up and peer_down here, and to SYNCING in meet.c. */
#include "agent/mesh/mesh.h"

#include "agent/kernel/flow.h"
#include "agent/kernel/registry.h"
#include "agent/kernel/rpc.h"
#include "agent/mesh/peer.h"
#include "agent/process/hosted.h"
#include "agent/send.h"
#include "base/buf.h"
#include "base/clock.h"
#include "core/reason.h"
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

struct peer *peer_get(struct agent *a, const struct nodename *name) {
  struct mesh *m = a->mesh;
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
  p->agent = a;
  p->name = *name;
  p->queue_end = &p->queue;
  uv_timer_init(&a->loop, &p->deadline);
  p->deadline.data = p;
  return p;
}

static struct peer *peer_of(struct agent *a, uint32_t incarnation) {
  return map_get(&a->mesh->peers, nodetab_name(a->nodes, incarnation));
}

static void tell(struct agent *a, const char *node, const char *why) {
  log_line(&a->log, why ? "%s is down: %s" : "%s is up%s", node, why ? why : "");
  for (struct mesh_subscriber *w = a->mesh->watches, *next; w; w = next) {
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

/* The link ends that was to be, and none that was made over a later connection. */
static void no_link(struct agent *a, const struct signal *s, const char *reason) {
  struct term *t = reason_word(reason);
  struct signal *end = t ? signal_new(SIGNAL_LINK_EXIT, s->from, s->to, NPID_NONE, t) : NULL;
  if (!end) {
    term_unref(t);
    return;
  }
  end->epoch = s->epoch;
  vm_deliver(a->vm, end);
}

void mesh_undeliverable(struct agent *a, struct signal *s, int code, const char *reason) {
  struct term *t = NULL;
  switch (s->kind) {
  case SIGNAL_MONITOR: agent_send(a, SIGNAL_DOWN, s->from, s->to, s->ref, t = reason_word(reason)); break;
  case SIGNAL_LINK: no_link(a, s, reason); break;
  case SIGNAL_UNLINK: agent_send(a, SIGNAL_UNLINK_ACK, s->from, s->to, s->ref, NULL); break;
  case SIGNAL_CALL:
    t = term_build("bss", 0, err_wire(code), reason);
    if (s->ref != NPID_NONE) agent_send(a, SIGNAL_REPLY, s->from, s->to, s->ref, t);
    break;
  default: break;
  }
  term_unref(t);
  signal_free(s);
}

static void write_frame(struct peer *p, struct signal *s) {
  struct buf *line = &p->agent->mesh->line;
  int code = frame_write(p->agent->nodes, s, line);
  if (!code) code = transport_write(p->link, line->data, line->len);
  buf_clear(line);
  buf_shrink(line);
  if (!code) {
    signal_free(s);
    return;
  }
  /* Signals are lost with the connection only, where that is told, and never one from among others. */
  peer_fail(p, code, err_sentence(code));
  mesh_undeliverable(p->agent, s, code, "noconnection");
}

/* Those who send to where it goes wait, or no longer. */
static void set_busy(struct agent *a, const struct signal *s, bool busy) {
  vm_set_busy(a->vm, npid_incarnation(s->to), busy);
}

static void empty_queue(struct peer *p, int code, const char *reason) {
  struct agent *a = p->agent;
  struct signal *s = p->queue;
  p->queue = NULL;
  p->queue_end = &p->queue;
  p->queued = 0;
  for (const struct signal *q = s; q; q = q->next) set_busy(a, q, false);
  while (s) {
    struct signal *next = s->next;
    if (code)
      mesh_undeliverable(a, s, code, reason);
    else
      mesh_send(a, s);
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

void mesh_send(struct agent *a, struct signal *s) {
  if (!nodetab_node_id(a->nodes, npid_incarnation(s->to))) { /* of an earlier life of ours */
    mesh_undeliverable(a, s, ERR_NO_PROCESS, "noproc");
    return;
  }
  if (s->epoch != nodetab_epoch(a->nodes, npid_incarnation(s->to))) { /* lost with its connection */
    mesh_undeliverable(a, s, ERR_LOST, "noconnection");
    return;
  }
  struct peer *p = peer_of(a, npid_incarnation(s->to));
  bool current = p && p->incarnation == npid_incarnation(s->to);
  if (current && p->state >= PEER_SYNCING) {
    write_frame(p, s);
    return;
  }
  if (!p) { /* a pid we were told of, of a node we never met */
    struct nodename name;
    struct error e;
    if (!nodename_parse(nodetab_name(a->nodes, npid_incarnation(s->to)), &name, &e)) p = peer_get(a, &name);
  }
  bool failed = p && p->failed_ns && clock_ns() - p->failed_ns < (int64_t)MESH_RETRY_MS * 1000000;
  bool hopeless = p && p->state == PEER_DOWN && (failed || !wants_connection(s));
  if (!p || hopeless || a->mesh->stopping || p->queued > TRANSPORT_QUEUE_MAX || p->state >= PEER_SYNCING) {
    mesh_undeliverable(a, s, ERR_NO_PROCESS, p && p->state >= PEER_SYNCING ? "noproc" : "noconnection");
    return;
  }
  s->next = NULL;
  *p->queue_end = s;
  p->queue_end = &s->next;
  p->queued += signal_weight(s);
  if (p->queued > TRANSPORT_QUEUE_HIGH) set_busy(a, s, true);
  mesh_connect(a, &p->name, on_wanted, NULL);
}

/* --- up and down ---------------------------------------------------------------------------------------- */

/* "two@rane: connection reset" says its name already where a name stands beside it. */
static const char *without_name(const struct peer *p, const char *text) {
  size_t n = strlen(p->name.full);
  return strncmp(text, p->name.full, n) != 0 || strncmp(text + n, ": ", 2) != 0 ? text : text + n + 2;
}

void peer_down(struct peer *p, const struct error *e) {
  struct agent *a = p->agent;
  bool was_up = p->state == PEER_UP, spoke = p->state >= PEER_SYNCING;
  struct transport *l = p->link;
  p->link = NULL;
  transport_close(l);
  dial_cancel(p->offer);
  p->offer = NULL;
  if (!was_up) p->port = 0; /* where it was looked for it is not */
  p->failed_ns = was_up ? 0 : clock_ns();
  p->state = PEER_DOWN;
  vm_set_busy(a->vm, p->incarnation, false);
  flow_node_down(a, p->incarnation);
  p->ready = p->greeted = false;
  p->joins = 0;
  peer_answer_offer(p, e);
  if (spoke) { /* ties to it may have gone out */
    struct term *reason = reason_word("noconnection");
    vm_node_down(a->vm, p->incarnation, nodetab_part(a->nodes, p->incarnation), "noconnection");
    hosted_node_down(a, p->incarnation, reason);
    term_unref(reason);
    rpc_node_down(a, p->incarnation);
    registry_node_down(a, p->incarnation);
  }
  if (was_up) tell(a, p->name.full, without_name(p, error_text(e)));
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
  tell(p->agent, p->name.full, NULL);
  peer_check_up(p);
}

void peer_begin(struct peer *p) {
  p->state = PEER_CONNECTING;
  scan_start(&p->scan, p->name.port, p->port);
  p->reset = false;
  uv_timer_start(&p->deadline, on_deadline, MESH_CONNECT_TIMEOUT_MS, 0);
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
    error_set(&e, ERR_TIMEOUT, "%s: no answer within %d s (timeout)", p->name.full,
              MESH_CONNECT_TIMEOUT_MS / 1000);
  peer_down(p, &e);
}

void peer_check_up(struct peer *p) {
  if (p->state == PEER_UP && !p->joins) answer_waiters(p, NULL);
}

/* --- connecting and parting ----------------------------------------------------------------------------- */

void mesh_connect(struct agent *a, const struct nodename *to, mesh_done *done, void *data) {
  struct error e = {0};
  struct peer *p = NULL;
  if (!strcmp(to->full, a->self)) {
    done(data, NULL, NPID_KERNEL);
    return;
  }
  if (a->mesh->stopping)
    error_set(&e, ERR_BUSY, "%s is stopping", a->self);
  else if (!(p = peer_get(a, to)))
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
    transport_part(l, line.data, line.len);
    buf_finish(&line);
  }
  peer_down(p, &e);
}

bool mesh_disconnect(struct agent *a, const char *node, const char *reason) {
  struct peer *p = map_get(&a->mesh->peers, node);
  if (!p || p->state != PEER_UP) return false;
  part(p, reason);
  return true;
}

/* --- members -------------------------------------------------------------------------------------------- */

static struct member member_of(const struct peer *p) {
  const struct nodetab *nodes = p->agent->nodes;
  return (struct member){.node = p->name.full,
                         .kernel = npid_make(p->incarnation, 0),
                         .creation = nodetab_creation(nodes, p->incarnation),
                         .id = nodetab_node_id(nodes, p->incarnation),
                         .up = p->state == PEER_UP};
}

void mesh_each(struct agent *a, void (*fn)(void *data, const struct member *m), void *data) {
  for (size_t i = 0; i < a->mesh->count; i++) {
    if (!a->mesh->order[i]->incarnation) continue;
    struct member m = member_of(a->mesh->order[i]);
    fn(data, &m);
  }
}

bool mesh_find(struct agent *a, const char *node, struct member *out) {
  const struct peer *p = map_get(&a->mesh->peers, node);
  if (!p || !p->incarnation) return false;
  *out = member_of(p);
  return true;
}

void mesh_subscribe(struct agent *a, struct mesh_subscriber *w) {
  w->next = a->mesh->watches;
  w->pprev = &a->mesh->watches;
  if (w->next) w->next->pprev = &w->next;
  a->mesh->watches = w;
}

void mesh_unsubscribe(struct mesh_subscriber *w) {
  *w->pprev = w->next;
  if (w->next) w->next->pprev = w->pprev;
}

struct mesh_subscriber *mesh_subscribers(struct agent *a) {
  return a->mesh ? a->mesh->watches : NULL;
}

/* --- lifecycle ------------------------------------------------------------------------------------------ */

static void on_heartbeat(uv_timer_t *t) {
  struct agent *a = t->data;
  for (size_t i = 0; i < a->mesh->count; i++)
    if (a->mesh->order[i]->link && a->mesh->order[i]->state >= PEER_SYNCING)
      transport_tick(a->mesh->order[i]->link);
}

int mesh_init(struct agent *a) {
  a->mesh = calloc(1, sizeof *a->mesh);
  if (!a->mesh) return ERR_NOMEM;
  uint64_t ms = (uint64_t)a->config->heartbeat_ms;
  uv_timer_init(&a->loop, &a->mesh->heartbeat);
  a->mesh->heartbeat.data = a;
  a->mesh->frames.nodes = a->nodes;
  uv_timer_start(&a->mesh->heartbeat, on_heartbeat, ms, ms);
  return 0;
}

void mesh_stop(struct agent *a) {
  a->mesh->stopping = true;
  for (size_t i = 0; i < a->mesh->count; i++)
    if (a->mesh->order[i]->state != PEER_DOWN) part(a->mesh->order[i], "stopped");
}

void mesh_finish(struct agent *a) {
  struct mesh *m = a->mesh;
  if (!m) return;
  mesh_stop(a);
  uv_close((uv_handle_t *)&m->heartbeat, NULL);
  for (size_t i = 0; i < m->count; i++) uv_close((uv_handle_t *)&m->order[i]->deadline, NULL);
}

void mesh_free(struct agent *a) {
  struct mesh *m = a->mesh;
  if (!m) return;
  for (size_t i = 0; i < m->count; i++) free(m->order[i]);
  free(m->order);
  frames_finish(&m->frames);
  buf_finish(&m->line);
  map_finish(&m->peers);
  free(m);
  a->mesh = NULL;
}
