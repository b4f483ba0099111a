/* Invariant: `claims` has the claims that this node publishes (those of `self`) and the claims that each peer
 * has sent over its link (those of the link). Each change of a claim of `self` is made together with its row
 * in `changes`. Each registration under way is in `pending` under its name, in one queue according to its
 * stage, and in the list of its process; it ends once, in pending_end.
 *
 * The orderings that the registry relies on:
 *
 *  - Lines of one link, in one direction, arrive in the order in which they were written, and none is missing
 *    while the link is up.  A link begins with the snapshot (mesh_registry_link_begin); from then on every
 * flush goes to it, also while further parts of the snapshot are sent.  So a peer that has the last part
 * knows, after each line, what this node said when it wrote the line.  A claim in a part may be sent again as
 * a change in the next flush; that does no harm, because the flush has all changes since the last flush, in
 * order, and leads to the same state.
 *  - A heartbeat with a version is such a line, and mesh_registry_version flushes first: the version and the
 * names that the peer has can be compared exactly, at any time.
 *  - Within a flush changes go before requests: an arbiter that reads a request has read every earlier drop
 *    of its home.  A release follows its request over the same link, so the arbiter has answered by then.
 *  - A process is watched before the arbiter is asked. This thread handles both the end of the process and
 * the grant: whichever comes second finds the effect of the first. So no name outlives its process.
 *  - As a link goes, its claims are hidden before anybody is told that the node is down, so no name of a lost
 *    node is found from then on; they are removed in slices.  A later link to the node has claims of its own.
 *  - Once a peer has sent all its names, those that were not among them are removed in slices.  A claim of
 * the peer that comes meanwhile stays: it has the mark of these names, and stands before all that is still to
 * be looked at.  Versions are not compared meanwhile.  Where the peer begins to send all names once more, the
 *    slices end, as the marks mean another set from then on; what they have left is removed with that set.
 *  - Nothing is assumed between two links.  Two homes may hold grants of two arbiters for one name, when
 *    their views of the cluster differ.  Both then publish, each hears of the other's claim over the link
 *    between them, and the home of the younger claim withdraws it (claims.h).
 *  - A grant that arrives after its request was given up is void: its number is no longer in `asked`, and the
 *    release is under way.  A grant that has taken half of the lease is void, too, as the arbiter may give
 *    the name to another home before this one has published.  Half of the lease is the time after which a
 *    request is given up, so only a home that was stopped meanwhile finds such a grant; and the change that
 *    publishes the name has the other half to arrive, behind the request, which took no longer than that. */
#include "agent/registry/mesh_registry.h"

#include "agent/registry/parts.h"
#include "base/holds.h"

#include <stdlib.h>
#include <string.h>

static struct mesh_registry *mesh_of(struct registry *base) {
  return RING_ENTRY(base, struct mesh_registry, base);
}

struct registry *mesh_registry_base(struct mesh_registry *g) {
  return &g->base;
}

/* --- registering ---------------------------------------------------------------------------------------- */

/* Calls the registry of the node that owns the process, or the process that has the name. */
static void forward(struct mesh_registry *g, uint32_t node, const char *name, struct term *args,
                    registry_done *done, void *data) {
  struct registry_way way = {g->host->call, g->data, g->config.nodes, node};
  registry_forward(&way, name, args, done, data);
}

static void begin(struct mesh_registry *g, const char *name, npid pid, bool force, registry_done *done,
                  void *data) {
  struct holder *holder = holder_get(g, pid);
  struct pending *p = holder ? pending_new(g, name, pid, force, done, data) : NULL;
  if (p && map_put(&g->pending, name, p)) {
    g->pending_count--;
    free(p->waiters);
    free(p);
    p = NULL;
  }
  if (!p) {
    registry_refuse(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  ring_push(&holder->pending, &p->of_process);
  arbiter_ask(g, p);
}

/* Handles a request for a name while a registration of that name is under way. A request for the same process
 * gets the outcome of that registration. A request for another process fails because the name is taken, or,
 * with force, begins when the present registration has ended. */
static void join(struct mesh_registry *g, struct pending *p, npid pid, bool force, registry_done *done,
                 void *data) {
  bool same = p->pid == pid;
  if (!same && !force) {
    done(data, NULL, false, 0);
    return;
  }
  struct waiter *w = pending_waiter(pid, force, done, data);
  if (!w) {
    registry_refuse(done, data, ERR_NOMEM, p->name, NULL);
    return;
  }
  struct waiter **at = same && p->force >= force ? &p->waiters : &p->behind;
  g->pending_count++;
  while (*at) at = &(*at)->next;
  *at = w;
}

bool mesh_registry_is_full(const struct mesh_registry *g, enum limit i, size_t count) {
  return count >= (size_t)limit_max(g->config.limits, i);
}

/* Checks the bounds before a registration begins. On failure *what is the text of the error. */
static int check_room(const struct mesh_registry *g, const struct claim *own, char text[LIMIT_TEXT_SIZE],
                      const char **what) {
  if (g->finishing) return *what = "this node is stopping", ERR_LOST;
  bool busy = mesh_registry_is_full(g, LIMIT_REGISTRATIONS, g->pending_count);
  if (!busy && (own || !mesh_registry_is_full(g, LIMIT_GLOBAL_NAMES, g->self.count))) return 0;
  enum limit i = busy ? LIMIT_REGISTRATIONS : LIMIT_GLOBAL_NAMES;
  limit_refuse(g->config.limits, i);
  *what = limit_text(g->config.limits, i, text);
  return ERR_BUSY;
}

void mesh_registry_begin(struct mesh_registry *g, const char *name, npid pid, bool force, registry_done *done,
                         void *data) {
  const struct claim *own = claims_of(&g->claims, &g->self, name);
  struct pending *p = map_get(&g->pending, name);
  const char *what = NULL;
  char text[LIMIT_TEXT_SIZE];
  int code = 0;
  if (!npid_is_local(pid))
    forward(g, npid_incarnation(pid), name, term_build("sspb", "name_register", name, pid, (int)force), done,
            data);
  else if (!g->host->alive(g->data, pid))
    registry_refuse(done, data, ERR_NO_PROCESS, name, NULL);
  else if (!p && own && own->terms.pid == pid)
    done(data, NULL, true, own->terms.token);
  else if (!p && !force && claims_best(&g->claims, name))
    done(data, NULL, false, 0);
  else if ((code = check_room(g, own, text, &what)))
    registry_refuse(done, data, code, name, what);
  else if (p)
    join(g, p, pid, force, done, data);
  else
    begin(g, name, pid, force, done, data);
}

static void remove_own_claim(struct mesh_registry *g, const char *name, uint64_t token, registry_done *done,
                             void *data) {
  struct claim *own = claims_of(&g->claims, &g->self, name);
  if (!own || own->terms.token != token) {
    done(data, NULL, false, 0);
    return;
  }
  struct pending *p = pending_new(g, name, NPID_NONE, false, done, data);
  if (!p) {
    registry_refuse(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  p->token = token;
  own_withdraw(g, own);
  round_await(g, p);
}

static void remove_name(struct registry *base, const char *name, registry_done *done, void *data) {
  struct mesh_registry *g = mesh_of(base);
  const struct claim *c = claims_best(&g->claims, name);
  if (!c)
    done(data, NULL, false, 0);
  else if (c->home == &g->self)
    remove_own_claim(g, name, c->terms.token, done, data);
  else
    forward(g, c->home->incarnation, name,
            term_build("ssi", "name_unregister", name, (int64_t)c->terms.token), done, data);
}

static void process_down(struct registry *base, npid pid) {
  struct mesh_registry *g = mesh_of(base);
  struct holder *h = map_remove_id(&g->holders, pid);
  if (!h) return;
  for (struct ring *r; (r = ring_first(&h->pending));)
    pending_end(g, RING_ENTRY(r, struct pending, of_process), ERR_NO_PROCESS, NULL, false);
  for (struct ring *r; (r = ring_first(&h->claims));) own_withdraw(g, RING_ENTRY(r, struct claim, twins));
  free(h);
}
/* --- time ----------------------------------------------------------------------------------------------- */

/* Begins a round when the first registration of the queue has waited for its grant for REGISTRY_PROBE_MS: the
 * peers that do not acknowledge it are passed over with the arbiter, instead of one after the other. */
static void tick_probe(struct mesh_registry *g, const struct ring *queue, int64_t now) {
  struct ring *r = ring_first(queue);
  struct pending *p = r ? RING_ENTRY(r, struct pending, queue) : NULL;
  if (!p || p->probed || now - p->began_ms < REGISTRY_PROBE_MS) return;
  p->probed = round_next(g);
}

static void tick_asking(struct mesh_registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->asking));) {
    struct pending *p = RING_ENTRY(r, struct pending, queue);
    if (now - p->since_ms < REGISTRY_PATIENCE_MS) return;
    p->arbiter->slow = true;
    arbiter_pass_over(g, p->arbiter);
  }
}

enum {
  AGAIN_MS = 20 /* time until the arbiter is asked again for a name that it has leased to another home */
};

static void tick_again(struct mesh_registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->again));) {
    struct pending *p = RING_ENTRY(r, struct pending, queue);
    if (now - p->since_ms < AGAIN_MS) return;
    arbiter_ask(g, p);
  }
}

static void tick_rounds(struct mesh_registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->waiting));) {
    const struct round *round = RING_ENTRY(r, struct round, queue);
    if (now - round->since_ms < REGISTRY_PATIENCE_MS) return;
    uint64_t number = round->number;
    for (struct ring *at = g->links.next; at != &g->links; at = at->next) {
      struct link *l = RING_ENTRY(at, struct link, all);
      if (!l->expects || l->expects->round->number > number) continue;
      l->slow = true;
      arbiter_pass_over(g, l);
    }
  }
}

static void tick_leases(struct mesh_registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->leased));) {
    struct lease *l = RING_ENTRY(r, struct lease, queue);
    if (now - l->since_ms < REGISTRY_LEASE_MS) return;
    arbiter_end_lease(g, l);
  }
}

static bool idle(const struct mesh_registry *g) {
  return ring_empty(&g->asking) && ring_empty(&g->again) && ring_empty(&g->waiting) && ring_empty(&g->leased);
}

void mesh_registry_tick(struct mesh_registry *g) {
  int64_t now = mesh_registry_now(g);
  if (g->walking) return;
  tick_probe(g, &g->asking, now);
  tick_probe(g, &g->again, now);
  tick_asking(g, now);
  tick_again(g, now);
  tick_rounds(g, now);
  tick_leases(g, now);
  if (g->config.loop && idle(g)) uv_timer_stop(&g->tick);
}

static void on_tick(uv_timer_t *t) {
  struct mesh_registry *g = t->data;
  holds_note(g->config.holds, "waits of the registry", NULL);
  mesh_registry_tick(g);
}

void mesh_registry_start_tick(struct mesh_registry *g) {
  if (!g->config.loop || g->finishing || uv_is_active((const uv_handle_t *)&g->tick)) return;
  uv_timer_start(&g->tick, on_tick, REGISTRY_TICK_MS, REGISTRY_TICK_MS);
}

/* Repeats the flush, as a callback may have registered a name. */
static void on_prepare(uv_prepare_t *h) {
  struct mesh_registry *g = h->data;
  holds_note(g->config.holds, "changes of global names", NULL);
  while (mesh_registry_flush(g)) continue;
  uv_prepare_stop(h);
}

static void on_idle(uv_idle_t *h) {
  const struct mesh_registry *g = h->data;
  holds_note(g->config.holds, "the snapshot of global names", NULL);
  if (!mesh_registry_slice(h->data)) uv_idle_stop(h);
}

void mesh_registry_start_slices(struct mesh_registry *g) {
  if (g->config.loop && !g->finishing) uv_idle_start(&g->slice, on_idle);
}

void mesh_registry_mark_dirty(struct mesh_registry *g) {
  if (!g->dirty && g->config.loop && !g->finishing) uv_prepare_start(&g->flush, on_prepare);
  g->dirty = true;
}

/* --- the registry's life -------------------------------------------------------------------------------- */

static void enter(struct registry *base, const char *name, npid pid, bool force, registry_done *done,
                  void *data) {
  mesh_registry_begin(mesh_of(base), name, pid, force, done, data);
}

static void remove_own(struct registry *base, const char *name, uint64_t token, registry_done *done,
                       void *data) {
  remove_own_claim(mesh_of(base), name, token, done, data);
}

static void whereis(struct registry *base, const char *name, registry_found *found, void *data) {
  uint64_t token = 0;
  npid pid = names_whereis(mesh_of(base)->config.globals, name, &token);
  found(data, NULL, pid, token, false);
}

static void add_handles(struct mesh_registry *g) {
  uv_prepare_init(g->config.loop, &g->flush);
  uv_timer_init(g->config.loop, &g->tick);
  uv_unref((uv_handle_t *)&g->tick);
  uv_idle_init(g->config.loop, &g->slice);
  g->flush.data = g->tick.data = g->slice.data = g;
  g->handles = 3;
}

static void free_holders(struct mesh_registry *g) {
  size_t at = 0;
  void *value;
  while (map_next(&g->holders, &at, NULL, NULL, &value)) free(value);
  map_finish(&g->holders);
}

static void end_all(struct mesh_registry *g) {
  size_t at = 0;
  void *value;
  while (g->pending.len && map_next(&g->pending, &at, NULL, NULL, &value)) {
    pending_end(g, value, ERR_LOST, "this node is stopping", false);
    at = 0; /* pending_end has changed the map */
  }
  for (struct ring *r; (r = ring_first(&g->waiting));) {
    struct round *round = RING_ENTRY(r, struct round, queue);
    round->open = 0;
    round_check(g, round);
  }
  while (pending_deliver(g)) continue;
}

static void on_closed(uv_handle_t *h) {
  struct mesh_registry *g = h->data;
  if (!--g->handles) free(g);
}

static void finish(struct registry *base) {
  struct mesh_registry *g = mesh_of(base);
  g->finishing = true;
  g->config.slice = UINT32_MAX; /* all at once */
  for (struct ring *r; (r = ring_first(&g->links));) {
    mesh_registry_link_down(g, RING_ENTRY(r, struct link, all)->home.incarnation);
    link_drop_slice(g);
  }
  if (g->open_round) {
    g->open_round->number = ++g->rounds;
    ring_push(&g->waiting, &g->open_round->queue);
    g->open_round = NULL;
  }
  end_all(g);
  free_holders(g);
  claims_finish(&g->claims);
  map_finish(&g->by_node);
  map_finish(&g->pending);
  map_finish(&g->asked);
  map_finish(&g->leases);
  cast_rows_finish(&g->changes);
  if (!g->config.loop) {
    free(g);
    return;
  }
  uv_close((uv_handle_t *)&g->flush, on_closed);
  uv_close((uv_handle_t *)&g->tick, on_closed);
  uv_close((uv_handle_t *)&g->slice, on_closed);
}

static struct registry_counts counts_of(const struct registry *base) {
  const struct mesh_registry *g = (const struct mesh_registry *)base;
  return (struct registry_counts){.known = names_count(g->config.globals),
                                  .names = g->self.count,
                                  .pending = g->pending_count,
                                  .leases = g->leases.len,
                                  .highest = g->highest,
                                  .registered = g->registered,
                                  .conflicts = g->conflicts,
                                  .resyncs = g->resyncs};
}

static const struct registry_class mesh_class = {.enter = enter,
                                                 .remove = remove_name,
                                                 .remove_own = remove_own,
                                                 .down = process_down,
                                                 .whereis = whereis,
                                                 .counts = counts_of,
                                                 .metrics = registry_put_counts,
                                                 .finish = finish};

int mesh_registry_new(const struct registry_config *config, const struct registry_host *host, void *data,
                      struct mesh_registry **out) {
  struct mesh_registry *g = calloc(1, sizeof *g);
  if (!g) return ERR_NOMEM;
  g->base.class = &mesh_class;
  g->config = *config;
  if (!g->config.slice) g->config.slice = REGISTRY_SLICE;
  g->host = host;
  g->data = data;
  g->claims.globals = config->globals;
  g->self.node = config->self;
  g->rank = arbiter_rank(config->self);
  struct ring *lists[] = {&g->links, &g->waiting, &g->asking, &g->again, &g->ended, &g->leased};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) ring_init(lists[i]);
  arbiter_saw_token(g, host->wall_us(data)); /* tokens of earlier lives of this node are below the clock */
  if (config->loop) add_handles(g);
  *out = g;
  return 0;
}
