/* Invariant: each lease is in `leases` under its name, in `leased`, the oldest first, and in the list of the
 * link that it was granted to.  A registration that waits for a grant is in `asked` under the number of its
 * request, and in the list of its arbiter. */
#include "agent/registry/parts.h"

#include <stdlib.h>
#include <string.h>

/* --- tokens and ranks ----------------------------------------------------------------------------------- */

void arbiter_saw_token(struct mesh_registry *g, int64_t token) {
  if (token > 0 && token < TOKEN_SEEN_MAX && (uint64_t)token > g->highest) g->highest = (uint64_t)token;
}

/* Returns a new token: the microseconds since 1970, or one more than the largest token seen, whichever is
 * larger. */
static int64_t new_token(struct mesh_registry *g) {
  int64_t now = g->host->wall_us(g->data);
  g->highest++;
  arbiter_saw_token(g, now);
  return (int64_t)g->highest;
}

uint64_t arbiter_rank(const char *text) {
  uint64_t h = UINT64_C(14695981039346656037);
  for (const char *s = text; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  return h;
}

/* The rank of a node for a name: a hash of both, with MurmurHash3's finalizer. */
static uint64_t rank_of(uint64_t name, uint64_t node) {
  uint64_t h = name ^ (node << 31 | node >> 33);
  h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
  h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
  return h ^ h >> 33;
}

/* Returns the link to the arbiter of a name; NULL when this node is the arbiter. */
static struct link *elect(const struct mesh_registry *g, const char *name) {
  uint64_t hash = arbiter_rank(name), best = rank_of(hash, g->rank);
  struct link *arbiter = NULL;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (!l->synced || !link_answers(l)) continue;
    uint64_t rank = rank_of(hash, l->rank);
    if (rank <= best) continue;
    best = rank;
    arbiter = l;
  }
  return arbiter;
}

/* --- arbitration ---------------------------------------------------------------------------------------- */

void arbiter_end_lease(struct mesh_registry *g, struct lease *l) {
  map_remove(&g->leases, l->name);
  ring_out(&l->queue);
  ring_out(&l->of_link);
  free(l);
}

static int lease_add(struct mesh_registry *g, struct link *to, uint64_t id, const char *name) {
  size_t size = strlen(name) + 1;
  struct lease *l = malloc(sizeof *l + size);
  if (!l) return ERR_NOMEM;
  *l = (struct lease){.link = to, .id = id, .since_ms = mesh_registry_now(g)};
  memcpy(l->name, name, size);
  if (map_put(&g->leases, name, l)) {
    free(l);
    return ERR_NOMEM;
  }
  ring_init(&l->queue);
  ring_init(&l->of_link);
  ring_push(&g->leased, &l->queue);
  ring_push(&to->leases, &l->of_link);
  mesh_registry_start_tick(g);
  return 0;
}

/* True when a node other than `home` claims the name. */
static bool held_elsewhere(const struct mesh_registry *g, const struct home *home, const char *name) {
  for (const struct claim *c = claims_best(&g->claims, name); c; c = c->rival)
    if (c->home != home && !c->home->gone) return true;
  return false;
}

/* True when this node is asking another arbiter for the name and has priority over the node `other`. Of two
 * nodes that ask each other, the node whose name sorts first has priority. */
static bool asks_itself(const struct mesh_registry *g, const char *name, const struct link *other) {
  const struct pending *p = map_get(&g->pending, name);
  return p && p->stage == STAGE_ASKING && strcmp(g->self.node, other->home.node) < 0;
}

int64_t arbiter_decide(struct mesh_registry *g, struct link *asker, uint64_t id, const char *name,
                       bool force) {
  struct lease *lease = map_get(&g->leases, name);
  if (lease && lease->link->gone) {
    arbiter_end_lease(g, lease);
    lease = NULL;
  }
  if (lease && lease->link != asker) return force ? GRANT_AGAIN : GRANT_TAKEN;
  if (!force && held_elsewhere(g, asker ? &asker->home : &g->self, name)) return GRANT_TAKEN;
  if (asker && asks_itself(g, name, asker)) return GRANT_AGAIN;
  if (lease) arbiter_end_lease(g, lease);
  if (asker &&
      (mesh_registry_is_full(g, LIMIT_REGISTRATIONS, g->leases.len) || lease_add(g, asker, id, name)))
    return GRANT_AGAIN;
  return new_token(g);
}

void arbiter_granted(struct mesh_registry *g, struct pending *p, int64_t token) {
  const struct claim *best = claims_best(&g->claims, p->name);
  bool late = mesh_registry_now(g) - p->since_ms > REGISTRY_LEASE_MS / 2;
  bool low = best && token <= (int64_t)best->terms.token; /* the arbiter did not know the claim `best` */
  bool taken = token == GRANT_TAKEN || (!p->force && best);
  bool granted = token > 0 && token < TOKEN_MAX && !taken && !late && !low;
  arbiter_saw_token(g, token);
  pending_stop_asking(g, p, token > 0 && !granted);
  if (granted) {
    own_publish(g, p, token);
  } else if (taken) {
    pending_end(g, p, 0, NULL, false);
  } else {
    p->stage = STAGE_AGAIN;
    p->since_ms = mesh_registry_now(g);
    ring_out(&p->queue);
    ring_push(&g->again, &p->queue);
    mesh_registry_start_tick(g);
  }
}

void arbiter_ask(struct mesh_registry *g, struct pending *p) {
  pending_stop_asking(g, p, true);
  ring_out(&p->queue);
  p->since_ms = mesh_registry_now(g);
  p->stage = STAGE_NEW;
  if (p->since_ms - p->began_ms >= REGISTRY_TIMEOUT_MS) {
    pending_end(g, p, ERR_TIMEOUT, NULL, false);
    return;
  }
  struct link *arbiter = elect(g, p->name);
  if (!arbiter) {
    arbiter_granted(g, p, arbiter_decide(g, NULL, 0, p->name, p->force));
    return;
  }
  p->id = ++g->last_id;
  if (map_put_id(&g->asked, p->id, p)) {
    p->id = 0;
    pending_end(g, p, ERR_NOMEM, NULL, false);
    return;
  }
  p->stage = STAGE_ASKING;
  p->arbiter = arbiter;
  ring_push(&g->asking, &p->queue);
  ring_push(&arbiter->asked, &p->at_arbiter);
  cast_rows_add_request(&arbiter->requests, p, false);
  mesh_registry_mark_dirty(g);
  mesh_registry_start_tick(g);
}

static void ask_others(struct mesh_registry *g, struct link *l) {
  for (struct ring *r; (r = ring_first(&l->asked));)
    arbiter_ask(g, RING_ENTRY(r, struct pending, at_arbiter));
}

void arbiter_pass_over(struct mesh_registry *g, struct link *l) {
  ask_others(g, l);
  round_drop_expects(g, l, UINT64_MAX);
}
