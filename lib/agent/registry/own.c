/* Invariant: each claim of this node is in the list `claims` of the holder of its process, which is watched.
 */
#include "agent/registry/parts.h"

#include <stdlib.h>

/* --- watched processes ---------------------------------------------------------------------------------- */

struct holder *holder_get(struct mesh_registry *g, npid pid) {
  struct holder *h = map_get_id(&g->holders, pid);
  if (h || !(h = malloc(sizeof *h))) return h;
  h->pid = pid;
  ring_init(&h->claims);
  ring_init(&h->pending);
  if (!map_put_id(&g->holders, pid, h)) {
    if (!g->host->watch(g->data, pid)) return h;
    map_remove_id(&g->holders, pid);
  }
  free(h);
  return NULL;
}

/* --- this node's own claims ----------------------------------------------------------------------------- */

/* Moves the cursors that stand at a claim that is about to be removed. */
static void pass_cursors(struct mesh_registry *g, const struct claim *c) {
  if (!g->slicing) return;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (l->cursor == c) l->cursor = c->next;
  }
}

void own_withdraw(struct mesh_registry *g, struct claim *c) {
  pass_cursors(g, c);
  cast_rows_add_drop(&g->changes, c);
  claims_remove(&g->claims, c);
  mesh_registry_mark_dirty(g);
}

void own_yield(struct mesh_registry *g, struct claim *own, const struct claim *winner) {
  bool replaced = winner->terms.over == own->terms.token;
  struct pending *p = map_get(&g->pending, own->name);
  if (!replaced) {
    struct term *t = term_build("ssp", "name_conflict", own->name, winner->terms.pid);
    g->conflicts++;
    g->host->tell(g->data, own->terms.pid, t);
    term_unref(t);
  }
  if (p && p->stage == STAGE_PUBLISHING) pending_end(g, p, 0, NULL, false);
  own_withdraw(g, own);
}

void own_publish(struct mesh_registry *g, struct pending *p, int64_t token) {
  struct claim *own = claims_of(&g->claims, &g->self, p->name), *best = claims_best(&g->claims, p->name);
  struct holder *holder = holder_get(g, p->pid);
  struct claim_terms terms = {.pid = p->pid, .token = (uint64_t)token, .age = (uint64_t)token};
  if (best) {
    terms.age = best->terms.age;
    terms.over = best->terms.token;
  }
  struct claim *c = holder ? claims_put(&g->claims, &g->self, p->name, &terms) : NULL;
  if (!c) {
    pending_end(g, p, ERR_NOMEM, NULL, false);
    return;
  }
  if (own) ring_out(&c->twins);
  ring_push(&holder->claims, &c->twins);
  cast_rows_add_claim(&g->changes, c);
  p->token = terms.token;
  round_await(g, p);
}
