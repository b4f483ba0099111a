/* Invariant: `slicing` counts the links whose `sending` is not SENDS_NOTHING, `dropping` those that are gone
 * and not freed.  No link is freed while the links are visited. */
#include "agent/registry/parts.h"

#include "core/procname.h"

#include <stdlib.h>

/* --- links ---------------------------------------------------------------------------------------------- */

void link_set_sending(struct mesh_registry *g, struct link *l, enum sending what, const struct claim *c) {
  g->slicing += (what != SENDS_NOTHING) - (l->sending != SENDS_NOTHING);
  l->sending = what;
  l->cursor = c;
}

static json_t *json_of_claim(const struct claim *c) {
  return json_pack("[s, I, I, I, I]", c->name, (json_int_t)npid_number(c->terms.pid),
                   (json_int_t)c->terms.token, (json_int_t)c->terms.age, (json_int_t)c->terms.over);
}

/* {"highest", "claims": [row…], "more"}: the next part of the snapshot for a link. Claims that this node
 * makes later are inserted before the cursor, so the snapshot does not have them; they are sent as
 * changes. */
static json_t *next_part(struct mesh_registry *g, struct link *l) {
  json_t *rows = json_array();
  const struct claim *c = l->cursor;
  for (uint32_t n = 0; rows && c && n < g->config.slice; n++, c = c->next)
    if (json_array_append_new(rows, json_of_claim(c))) {
      json_decref(rows);
      rows = NULL;
    }
  link_set_sending(g, l, rows && c ? SENDS_SNAPSHOT : SENDS_NOTHING, c);
  return rows ? json_pack("{s:I, s:o, s:b}", "highest", (json_int_t)g->highest, "claims", rows, "more",
                          c != NULL)
              : NULL;
}

static struct link *link_new(struct mesh_registry *g, uint32_t node) {
  struct link *l = calloc(1, sizeof *l);
  if (!l || map_put_id(&g->by_node, node, l)) {
    free(l);
    return NULL;
  }
  l->home.incarnation = node;
  l->home.node = nodetab_name(g->config.nodes, node);
  l->rank = arbiter_rank(l->home.node);
  l->expects_end = &l->expects;
  ring_init(&l->all);
  ring_init(&l->asked);
  ring_init(&l->leases);
  ring_push(&g->links, &l->all);
  return l;
}

static void link_free(struct link *l) {
  cast_rows_finish(&l->requests);
  cast_rows_finish(&l->grants);
  free(l);
}

/* Removes what is left of a link that is gone, *left claims and leases at most. */
static void drop_some(struct mesh_registry *g, struct link *l, uint32_t *left) {
  for (; *left && l->home.claims; (*left)--) claims_remove(&g->claims, l->home.claims);
  for (struct ring *r; *left && (r = ring_first(&l->leases)); (*left)--)
    arbiter_end_lease(g, RING_ENTRY(r, struct lease, of_link));
}

void link_drop_slice(struct mesh_registry *g) {
  uint32_t left = g->config.slice;
  if (g->walking) return;
  for (struct ring *r = g->links.next, *next; g->dropping && r != &g->links; r = next) {
    next = r->next;
    struct link *l = RING_ENTRY(r, struct link, all);
    if (!l->gone) continue;
    drop_some(g, l, &left);
    if (l->home.claims || !ring_empty(&l->leases)) break;
    g->dropping--;
    ring_out(r);
    link_free(l);
  }
  if (g->dropping) mesh_registry_start_slices(g);
}

json_t *mesh_registry_link_begin(struct mesh_registry *g, uint32_t node) {
  mesh_registry_link_down(g, node);
  struct link *l = link_new(g, node);
  if (!l) return NULL;
  l->cursor = g->self.claims;
  json_t *v = next_part(g, l);
  if (!v) mesh_registry_link_down(g, node);
  if (v && l->sending) mesh_registry_start_slices(g);
  return v;
}

static void send_part(struct mesh_registry *g, struct link *l, int flags);

/* Flushes first: the cast of a part takes the requests of the next flush along, which must follow the changes
 * before them. */
bool mesh_registry_slice(struct mesh_registry *g) {
  if (g->walking || (!g->slicing && !g->dropping && !g->sweeping)) return false;
  while (mesh_registry_flush(g)) continue;
  link_drop_slice(g);
  heard_sweep_slice(g);
  g->walking = true;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (l->sending == SENDS_SNAPSHOT) g->host->more(g->data, l->home.incarnation, next_part(g, l));
    if (l->sending == SENDS_ALL) send_part(g, l, 0);
  }
  g->walking = false;
  return true;
}

bool mesh_registry_link_synced(struct mesh_registry *g, uint32_t node, const json_t *v) {
  struct link *l = map_get_id(&g->by_node, node);
  if (!l) return true;
  size_t i;
  json_t *row;
  arbiter_saw_token(g, json_integer_value(json_object_get(v, "highest")));
  json_array_foreach(json_object_get(v, "claims"), i, row) {
    const char *name;
    json_int_t number, token, age, over;
    json_error_t e;
    if (json_unpack_ex(row, &e, 0, "[s, I, I, I, I]", &name, &number, &token, &age, &over) ||
        procname_check(name, NULL) || !heard_good_claim(number, token, age, over))
      continue;
    heard_claim(g, l, name,
                &(struct claim_terms){.pid = npid_make(node, (uint64_t)number),
                                      .token = (uint64_t)token,
                                      .age = (uint64_t)age,
                                      .over = (uint64_t)over});
  }
  l->synced = !json_is_true(json_object_get(v, "more"));
  return l->synced;
}

void mesh_registry_link_down(struct mesh_registry *g, uint32_t node) {
  struct link *l = map_remove_id(&g->by_node, node);
  if (!l) return;
  l->gone = true;
  g->dropping++;
  claims_hide(&g->claims, &l->home);
  link_set_sending(g, l, SENDS_NOTHING, NULL);
  heard_set_sweep(g, l, NULL);
  arbiter_pass_over(g, l);
  link_drop_slice(g);
  if (g->walking) mesh_registry_start_slices(g);
}

void mesh_registry_link_suspect(struct mesh_registry *g, uint32_t node, bool suspected) {
  struct link *l = map_get_id(&g->by_node, node);
  if (!l) return;
  l->suspected = suspected;
  if (suspected) arbiter_pass_over(g, l);
}

/* --- the flush ------------------------------------------------------------------------------------------ */

/* Sends one cast: ["names", highest token, number of the round (0: none), round of the peer's that this node
 * has (0: no news), flags, changes, requests, grants]. When memory runs out the line is not sent: the peer
 * finds the difference by the version in the next heartbeat, and asks for all names. */
static void send_to(struct mesh_registry *g, struct link *l, uint64_t number, int flags,
                    const struct rows *changes) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "names");
  term_put_int(&w, (int64_t)g->highest);
  term_put_int(&w, (int64_t)number);
  term_put_int(&w, (int64_t)l->have);
  term_put_int(&w, flags);
  cast_rows_put(&w, changes);
  cast_rows_put(&w, &l->requests);
  cast_rows_put(&w, &l->grants);
  struct term *t = term_from_writer(&w, 8);
  term_writer_finish(&w);
  l->have = 0;
  cast_rows_clear(&l->requests);
  cast_rows_clear(&l->grants);
  if (t)
    g->host->cast(g->data, l->home.incarnation, t);
  else
    log_line(g->config.log, "out of memory: %s is not told of names until the next heartbeat", l->home.node);
}

/* Sends the next part of all names of this node.  Names that it gets meanwhile are sent as changes. */
static void send_part(struct mesh_registry *g, struct link *l, int flags) {
  struct rows rows = {0};
  const struct claim *c = l->cursor;
  for (; c && rows.count < g->config.slice; c = c->next) cast_rows_add_claim(&rows, c);
  link_set_sending(g, l, c ? SENDS_ALL : SENDS_NOTHING, c);
  send_to(g, l, 0, flags | (c ? 0 : CAST_LAST), &rows);
  cast_rows_finish(&rows);
}

/* Begins to send all names of this node, because the peer has found a difference. */
static void send_all(struct mesh_registry *g, struct link *l) {
  l->cursor = g->self.claims;
  send_part(g, l, CAST_FIRST);
  if (l->sending) mesh_registry_start_slices(g);
}

static void flush_to(struct mesh_registry *g, struct link *l, const struct rows *changes,
                     struct round *round) {
  int flags = l->want_all ? CAST_WANT_ALL : 0;
  bool asks = round && link_answers(l);
  bool any = asks || changes->count || l->have || flags || l->requests.count || l->grants.count;
  bool all = l->wants_all && !l->sending; /* what is on its way has all that the peer lacks */
  l->want_all = l->wants_all = false;
  if (asks) round_add_expect(l, round);
  if (any) send_to(g, l, round ? round->number : 0, flags, changes);
  if (all && !l->gone) send_all(g, l);
}

/* Closes the round that registrations have joined since the last flush, and returns it. NULL when no
 * registration waits for the changes. */
static struct round *begin_round(struct mesh_registry *g) {
  struct round *r = g->open_round;
  g->open_round = NULL;
  if (!r) return NULL;
  r->number = ++g->rounds;
  r->since_ms = mesh_registry_now(g);
  r->open = 1; /* keeps the round open until all links have been visited */
  ring_push(&g->waiting, &r->queue);
  mesh_registry_start_tick(g);
  return r;
}

static void flush_links(struct mesh_registry *g) {
  struct rows changes = g->changes;
  struct round *round = begin_round(g);
  g->changes = (struct rows){0};
  g->walking = true;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (!l->gone) flush_to(g, l, &changes, round);
  }
  g->walking = false;
  cast_rows_finish(&changes);
  if (!round) return;
  round->open--;
  round_check(g, round);
}

bool mesh_registry_flush(struct mesh_registry *g) {
  if (g->walking || !g->dirty) return false;
  g->dirty = false;
  flush_links(g);
  pending_deliver(g);
  return true;
}
