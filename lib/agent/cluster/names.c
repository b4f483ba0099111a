/* Invariant: `own` has the names that processes of this node have, each with the token of the registration
 * that etcd has confirmed; `globals` has them too.  Each process with own names or writes is watched.
 *
 * The orderings that the registry relies on:
 *
 *  - A process is watched before its registration is sent.  This thread handles both its end and the answer
 *    of etcd: whichever comes second finds the effect of the first, so no name outlives its process.
 *  - There is at most one write of a name under way, and later requests for the name wait for its outcome.
 *    So the writes of this node for one name are executed in the order in which they were asked for.
 *  - No order is assumed between nodes, nor between two requests of this node: each write has as a condition
 *    the revision of the key that it was decided on, and is decided again when that was not the last one.
 *  - A write whose answer is lost may have been executed, or may be yet.  A later write of the name by this
 *    node has a condition that only one of them can meet, and finds in the key what the other one has left.
 *  - Whatever puts a name has the member key of this node as a condition.  So once etcd has dropped the key,
 *    no name of this node's former life is put, however late the request arrives.  A removal has the revision
 *    of what it removes as its condition, and needs no other. */
#include "agent/cluster/names.h"

#include "agent/cluster/names_parts.h"
#include "base/holds.h"
#include "base/metrics.h"
#include "base/random.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_MS = 50, REST_MS = 1000 };

static struct cluster_names *registry_of(struct registry *base) {
  return RING_ENTRY(base, struct cluster_names, base);
}

struct registry *cluster_names_base(struct cluster_names *g) {
  return &g->base;
}

/* --- registering ---------------------------------------------------------------------------------------- */

static void forward(struct cluster_names *g, uint32_t node, const char *name, struct term *args,
                    registry_done *done, void *data) {
  struct registry_way way = {g->config.host->call, g->config.data, g->config.nodes, node};
  registry_forward(&way, name, args, done, data);
}

/* Checks the bounds before a registration begins. */
static int check_room(const struct cluster_names *g, const struct own *o, const char *name, struct error *e) {
  bool busy = g->pending >= (size_t)limit_max(g->config.limits, LIMIT_REGISTRATIONS);
  bool full = !o && g->own.len >= (size_t)limit_max(g->config.limits, LIMIT_GLOBAL_NAMES);
  if (g->finishing) return error_set(e, ERR_LOST, "%s: this node is stopping", name);
  if (!busy && !full) return 0;
  return limit_error(g->config.limits, busy ? LIMIT_REGISTRATIONS : LIMIT_GLOBAL_NAMES, name, e);
}

/* Handles a request for a name while a write of that name is under way. */
static void join(struct cluster_names *g, struct write *w, npid pid, bool force, registry_done *done,
                 void *data) {
  bool registers = (w->kind == WRITE_REGISTER || w->kind == WRITE_AGAIN) && !names_dead(w);
  bool same = registers && w->pid == pid;
  if (registers && !same && !force) {
    done(data, NULL, false, 0);
    return;
  }
  struct waiter *waiter = names_waiter(pid, force, done, data);
  if (!waiter) {
    registry_refuse(done, data, ERR_NOMEM, w->name, NULL);
    return;
  }
  names_wait(g, w);
  g->pending++;
  if (same && w->force >= force)
    STAILQ_INSERT_TAIL(&w->waiters, waiter, next);
  else
    STAILQ_INSERT_TAIL(&w->behind, waiter, next);
  names_start(g);
}

static void begin(struct cluster_names *g, const struct own *o, const char *name, npid pid, bool force,
                  registry_done *done, void *data) {
  struct write *w = names_write(g, WRITE_REGISTER, name, pid, o ? o->token : 0, done, data);
  if (!w) {
    registry_refuse(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  w->force = force;
  names_pump_writes(g);
}

void names_enter_now(struct cluster_names *g, const char *name, npid pid, bool force, registry_done *done,
                     void *data) {
  const struct own *o = names_own(g, name);
  struct write *w = map_get(&g->writes, name);
  struct error e;
  if (!npid_is_local(pid))
    forward(g, npid_incarnation(pid), name, term_build("sspb", "name_register", name, pid, (int)force), done,
            data);
  else if (!g->config.host->alive(g->config.data, pid))
    registry_refuse(done, data, ERR_NO_PROCESS, name, NULL);
  else if (!w && o && (o->unsure || !g->sure))
    registry_refuse(done, data, ERR_ETCD, name, NULL);
  else if (!w && o && o->pid == pid)
    done(data, NULL, true, (uint64_t)o->token);
  else if (!w && o && !force)
    done(data, NULL, false, 0);
  else if (check_room(g, o, name, &e))
    done(data, &e, false, 0);
  else if (w)
    join(g, w, pid, force, done, data);
  else
    begin(g, o, name, pid, force, done, data);
}

static void enter(struct registry *base, const char *name, npid pid, bool force, registry_done *done,
                  void *data) {
  struct cluster_names *g = registry_of(base);
  struct waiter *w =
      names_resumes(g, name) && npid_is_local(pid) ? names_waiter(pid, force, done, data) : NULL;
  if (w)
    names_resume_behind(g, name, w);
  else
    names_enter_now(g, name, pid, force, done, data);
}

/* --- removing ------------------------------------------------------------------------------------------- */

static void remove_own(struct registry *base, const char *name, uint64_t token, registry_done *done,
                       void *data) {
  struct cluster_names *g = registry_of(base);
  struct own *o = names_own(g, name);
  if (!o || o->token != (int64_t)token || g->finishing) {
    done(data, NULL, false, 0);
    return;
  }
  if (map_get(&g->writes, name) ||
      names_resumes(g, name)) { /* the name is changing hands, or is being removed */
    registry_refuse(done, data, ERR_BUSY, name, "another change of the name is under way: try again");
    return;
  }
  if (!names_write(g, WRITE_REMOVE, name, o->pid, o->token, done, data)) {
    registry_refuse(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  names_pump_writes(g);
}

struct removal {
  struct cluster_names *names;
  registry_done *done;
  void *data;
  char name[];
};

static void on_found(void *data, const struct error *e, npid pid, uint64_t token, bool stale) {
  struct removal *r = data;
  (void)stale;
  if (e)
    r->done(r->data, e, false, 0);
  else if (pid == NPID_NONE)
    r->done(r->data, NULL, false, 0);
  else if (npid_is_local(pid))
    remove_own(&r->names->base, r->name, token, r->done, r->data);
  else
    forward(r->names, npid_incarnation(pid), r->name,
            term_build("ssi", "name_unregister", r->name, (int64_t)token), r->done, r->data);
  free(r);
}

static void whereis(struct registry *base, const char *name, registry_found *found, void *data) {
  struct cluster_names *g = registry_of(base);
  uint64_t token = 0;
  npid pid = names_whereis(g->config.globals, name, &token);
  if (pid == NPID_NONE)
    names_find(g, name, found, data);
  else
    found(data, NULL, pid, token, cluster_names_stale(g, name));
}

static void remove_name(struct registry *base, const char *name, registry_done *done, void *data) {
  size_t size = strlen(name) + 1;
  struct removal *r = malloc(sizeof *r + size);
  if (!r) {
    registry_refuse(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  *r = (struct removal){registry_of(base), done, data};
  memcpy(r->name, name, size);
  whereis(base, name, on_found, r);
}

static void process_down(struct registry *base, npid pid) {
  names_process_down(registry_of(base), pid);
}

/* --- time ----------------------------------------------------------------------------------------------- */

bool names_late(const char *name, int64_t now, int64_t began_ms, int64_t answered_ms, struct error *e) {
  if (now - began_ms >= NAMES_ANSWER_MS && now - answered_ms >= NAMES_ANSWER_MS)
    error_set(e, ERR_ETCD, "%s: etcd has not answered in time (etcd): is it there, with a leader?", name);
  else if (now - began_ms >= NAMES_PATIENCE_MS)
    error_set(e, ERR_TIMEOUT,
              "%s: etcd answers too slowly for all that this node asks it (timeout): try again", name);
  else
    return false;
  return true;
}

static bool busy(const struct cluster_names *g) {
  return g->writes.len || g->lookups.len || g->lapsed || !ring_empty(&g->polled);
}

static void on_tick(uv_timer_t *t) {
  struct cluster_names *g = t->data;
  int64_t now = names_now(g);
  holds_note(g->config.holds, "global names on etcd", NULL);
  names_tick_leases(g, now);
  names_audit(g, now);
  names_tick_writes(g, now);
  names_tick_reads(g);
  uv_timer_set_repeat(t, busy(g) ? TICK_MS : REST_MS);
}

void names_start(struct cluster_names *g) {
  if (g->finishing || uv_timer_get_repeat(&g->tick) == TICK_MS) return;
  uv_timer_start(&g->tick, on_tick, TICK_MS, TICK_MS);
}

static void on_slice(uv_idle_t *h) {
  struct cluster_names *g = h->data;
  int left = NAMES_SLICE;
  holds_note(g->config.holds, "global names on etcd", NULL);
  names_answer_slice(g, &left);
  names_fail_old(g, names_now(g), &left);
  names_read_slice(g, &left);
  names_own_slice(g, &left);
  if (left > 0) uv_idle_stop(h);
}

void names_start_slices(struct cluster_names *g) {
  if (!g->finishing) uv_idle_start(&g->slice, on_slice);
}

/* --- its life ------------------------------------------------------------------------------------------- */

static void free_all(struct cluster_names *g) {
  if (g->handles || g->requests) return;
  map_finish(&g->own);
  map_finish(&g->holders);
  map_finish(&g->writes);
  map_finish(&g->known);
  map_finish(&g->owners);
  map_finish(&g->lookups);
  map_finish(&g->resuming);
  free(g->self_key);
  free(g);
}

void names_request_done(struct cluster_names *g) {
  g->requests--;
  if (g->finishing) free_all(g);
}

static void on_closed(uv_handle_t *h) {
  struct cluster_names *g = h->data;
  g->handles--;
  free_all(g);
}

/* Frees a slice of all there is. */
static void on_end(uv_idle_t *h) {
  struct cluster_names *g = h->data;
  int left = NAMES_SLICE;
  holds_note(g->config.holds, "the end of global names on etcd", NULL);
  names_writes_end(g, &left);
  names_own_end(g, &left);
  names_known_end(g, &left);
  if (left > 0) uv_close((uv_handle_t *)h, on_closed);
}

/* registry_class.finish: tells those who wait before it returns, and has the leases revoked. */
static void finish(struct registry *base) {
  struct cluster_names *g = registry_of(base);
  int all = INT_MAX;
  g->finishing = true;
  names_writes_finish(g);
  names_reads_finish(g);
  names_answer_slice(g, &all);
  names_leases_finish(g);
  uv_close((uv_handle_t *)&g->tick, on_closed);
  uv_idle_stop(&g->slice);
  uv_idle_start(&g->slice, on_end);
}

static struct registry_counts counts_of(const struct registry *base) {
  const struct cluster_names *g = (const struct cluster_names *)base;
  return (struct registry_counts){.known = names_count(g->config.globals),
                                  .names = g->own.len,
                                  .pending = g->pending,
                                  .highest = (uint64_t)g->highest,
                                  .registered = g->registered,
                                  .conflicts = g->conflicts,
                                  .resyncs = g->resyncs};
}

static const struct registry_class names_class = {.enter = enter,
                                                  .remove = remove_name,
                                                  .remove_own = remove_own,
                                                  .down = process_down,
                                                  .whereis = whereis,
                                                  .asks = true,
                                                  .counts = counts_of,
                                                  .metrics = registry_put_counts,
                                                  .finish = finish};

int cluster_names_new(const struct cluster_names_config *config, struct cluster_names **out) {
  struct cluster_names *g = calloc(1, sizeof *g);
  char key[NAMES_KEY_SIZE];
  if (!g) return ERR_NOMEM;
  g->config = *config;
  g->self_key = strdup(names_member_key(g, config->self, key));
  if (!g->self_key) return free(g), ERR_NOMEM;
  g->base.class = &names_class;
  g->sure = true;
  struct ring *lists[] = {&g->all_own, &g->unleased, &g->holders_gone, &g->queued, &g->sent,
                          &g->waited,  &g->leases,   &g->watched,      &g->polled, &g->owners_gone,
                          &g->asking,  &g->late,     &g->answers,      &g->resumed};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) ring_init(lists[i]);
  for (int i = 0; i < NAMES_SHARDS; i++) {
    g->shards[i].names = g;
    ring_init(&g->shards[i].known);
    ring_init(&g->shards[i].lapsed);
  }
  g->audited_ms = names_now(g);
  g->batch = NAMES_BATCH;
  g->random = random_number();
  uv_timer_init(config->loop, &g->tick);
  uv_idle_init(config->loop, &g->slice);
  g->tick.data = g->slice.data = g;
  g->handles = 2;
  uv_timer_start(&g->tick, on_tick, REST_MS, REST_MS);
  uv_unref((uv_handle_t *)&g->tick);
  *out = g;
  return 0;
}
