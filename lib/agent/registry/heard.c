/* Invariant: what a peer says changes the claims of that peer alone; an own claim over which the claim of the
 * peer takes precedence is withdrawn at once. */
#include "agent/registry/parts.h"

/* --- what a peer says of its names ---------------------------------------------------------------------- */

void heard_set_sweep(struct mesh_registry *g, struct link *l, struct claim *c) {
  g->sweeping += (c != NULL) - (l->sweep != NULL);
  l->sweep = c;
}

void heard_claim(struct mesh_registry *g, struct link *l, const char *name, const struct claim_terms *terms) {
  struct lease *lease = map_get(&g->leases, name);
  if (lease && lease->link == l) arbiter_end_lease(g, lease);
  arbiter_saw_token(g, (int64_t)terms->token);
  struct claim *c = claims_of(&g->claims, &l->home, name);
  if (c || l->home.count < (size_t)limit_most(LIMIT_GLOBAL_NAMES))
    c = claims_put(&g->claims, &l->home, name, terms);
  if (!c) return; /* out of memory; the next heartbeat shows that the versions differ */
  c->mark = l->mark;
  struct claim *own = claims_of(&g->claims, &g->self, name);
  if (own && claim_precedes(c, own)) own_yield(g, own, c);
}

static void on_drop(struct mesh_registry *g, struct link *l, const char *name, uint64_t token) {
  struct claim *c = claims_of(&g->claims, &l->home, name);
  if (!c || c->terms.token != token) return;
  if (l->sweep == c) heard_set_sweep(g, l, c->next);
  claims_remove(&g->claims, c);
}

static bool good_token(int64_t token) {
  return token > 0 && token < TOKEN_MAX;
}

bool heard_good_claim(int64_t number, int64_t token, int64_t age, int64_t over) {
  return number > 0 && number <= (int64_t)NPID_NUMBER_MAX && good_token(token) && good_token(age) &&
         age <= token && over >= 0 && over < token;
}

/* Applies a row of cast_rows_add_claim or cast_rows_add_drop, and moves r behind the row. */
static void hear_change(struct mesh_registry *g, struct link *l, struct term_reader *r) {
  struct term_reader row = *r;
  struct term_value head = term_next(&row);
  char name[256];
  int64_t v[4] = {0};
  term_skip(r);
  if (head.tag != TERM_LIST || !cast_rows_get_name(&row, name)) return;
  for (uint32_t i = 1; i < head.count && i <= 4; i++)
    if (!term_get_int(&row, &v[i - 1])) return;
  if (head.count == 2) on_drop(g, l, name, (uint64_t)v[0]);
  if (head.count == 3) v[2] = v[1];
  if (head.count >= 3 && heard_good_claim(v[0], v[1], v[2], v[3]))
    heard_claim(g, l, name,
                &(struct claim_terms){.pid = npid_make(l->home.incarnation, (uint64_t)v[0]),
                                      .token = (uint64_t)v[1],
                                      .age = (uint64_t)v[2],
                                      .over = (uint64_t)v[3]});
}

static void hear_request(struct mesh_registry *g, struct link *l, struct term_reader *r) {
  struct term_reader row = *r;
  struct term_value head = term_next(&row);
  char name[256];
  int64_t id;
  term_skip(r);
  if (head.tag != TERM_LIST || head.count < 2 || !term_get_int(&row, &id) || !cast_rows_get_name(&row, name))
    return;
  if (head.count > 2) {
    bool force = term_next(&row).tag == TERM_TRUE;
    cast_rows_add_grant(&l->grants, id, arbiter_decide(g, l, (uint64_t)id, name, force));
    mesh_registry_mark_dirty(g);
    return;
  }
  struct lease *lease = map_get(&g->leases, name);
  if (lease && lease->link == l && lease->id == (uint64_t)id) arbiter_end_lease(g, lease);
}

static void hear_grant(struct mesh_registry *g, struct link *l, struct term_reader *r) {
  struct term_reader row = *r;
  struct term_value head = term_next(&row);
  int64_t id, token;
  term_skip(r);
  if (head.tag != TERM_LIST || !term_get_int(&row, &id) || !term_get_int(&row, &token)) return;
  struct pending *p = map_get_id(&g->asked, (uint64_t)id);
  if (p && p->arbiter == l) arbiter_granted(g, p, token);
}

/* Reads a list of rows. False when the next value is not a list. */
static bool hear_rows(struct mesh_registry *g, struct link *l, struct term_reader *r,
                      void (*hear)(struct mesh_registry *g, struct link *l, struct term_reader *r)) {
  struct term_value list = term_next(r);
  if (list.tag != TERM_LIST) return false;
  for (uint32_t i = 0; i < list.count; i++) hear(g, l, r);
  return true;
}

/* Looks at *left claims of the sweep, and removes those that were not among all names that the peer has sent.
 */
static void sweep_some(struct mesh_registry *g, struct link *l, uint32_t *left) {
  struct claim *c = l->sweep;
  for (struct claim *next; c && *left; c = next, (*left)--) {
    next = c->next;
    if (c->mark != l->mark) claims_remove(&g->claims, c);
  }
  heard_set_sweep(g, l, c);
}

void heard_sweep_slice(struct mesh_registry *g) {
  uint32_t left = g->config.slice;
  for (struct ring *r = g->links.next; g->sweeping && r != &g->links; r = r->next)
    sweep_some(g, RING_ENTRY(r, struct link, all), &left);
  if (g->sweeping) mesh_registry_start_slices(g);
}

void mesh_registry_heard(struct mesh_registry *g, uint32_t node, struct term_reader r) {
  struct link *l = map_get_id(&g->by_node, node);
  int64_t highest, number, have, flags;
  if (!l || !term_get_int(&r, &highest) || !term_get_int(&r, &number) || !term_get_int(&r, &have) ||
      !term_get_int(&r, &flags))
    return;
  l->slow = false;
  arbiter_saw_token(g, highest);
  if (flags & CAST_FIRST) {
    l->mark++;
    heard_set_sweep(g, l, NULL);
  }
  bool whole = hear_rows(g, l, &r, hear_change);
  if (whole && flags & CAST_LAST) {
    heard_set_sweep(g, l, l->home.claims);
    heard_sweep_slice(g);
  }
  if (number > 0) l->have = (uint64_t)number;
  if (flags & CAST_WANT_ALL) l->wants_all = true;
  if (number > 0 || flags & CAST_WANT_ALL) mesh_registry_mark_dirty(g);
  round_drop_expects(g, l, (uint64_t)have);
  if (whole && hear_rows(g, l, &r, hear_request)) hear_rows(g, l, &r, hear_grant);
}

/* --- versions ------------------------------------------------------------------------------------------- */

json_t *mesh_registry_version(struct mesh_registry *g) {
  while (mesh_registry_flush(g)) continue;
  return json_pack("[I, I, I]", (json_int_t)g->self.count, (json_int_t)g->self.sum, (json_int_t)g->highest);
}

enum { LOG_AGAIN_MS = 60000 /* least time between two log lines that say that the names of a peer differ */ };

static void log_difference(struct mesh_registry *g, struct link *l, json_int_t count) {
  int64_t now = mesh_registry_now(g);
  if (l->logged_ms && now - l->logged_ms < LOG_AGAIN_MS) return;
  l->logged_ms = now ? now : 1;
  log_line(g->config.log, "%s: its global names (%lld) differ from those known here (%zu): asking for all",
           l->home.node, (long long)count, l->home.count);
}

void mesh_registry_version_heard(struct mesh_registry *g, uint32_t node, const json_t *version) {
  struct link *l = map_get_id(&g->by_node, node);
  json_int_t count, sum, highest;
  json_error_t e;
  if (!l || !l->synced || json_unpack_ex((json_t *)version, &e, 0, "[I, I, I]", &count, &sum, &highest))
    return;
  l->slow = false;
  arbiter_saw_token(g, highest);
  if (l->sweep || ((size_t)count == l->home.count && (uint64_t)sum == l->home.sum)) return;
  log_difference(g, l, count);
  g->resyncs++;
  l->want_all = true;
  mesh_registry_mark_dirty(g);
}
