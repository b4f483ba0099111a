/* Invariant: a registration that has ended is in `ended`, and in no other list, until its callbacks have run.
 * A round is in `waiting` as long as `open` is not 0. */
#include "agent/registry/parts.h"

#include <stdlib.h>
#include <string.h>

/* --- a registration ------------------------------------------------------------------------------------- */

struct waiter *pending_waiter(npid pid, bool force, registry_done *done, void *data) {
  struct waiter *w = malloc(sizeof *w);
  if (w) *w = (struct waiter){NULL, done, data, pid, force};
  return w;
}

struct pending *pending_new(struct mesh_registry *g, const char *name, npid pid, bool force,
                            registry_done *done, void *data) {
  size_t size = strlen(name) + 1;
  struct waiter *w = pending_waiter(pid, force, done, data);
  struct pending *p = w ? malloc(sizeof *p + size) : NULL;
  if (!p) {
    free(w);
    return NULL;
  }
  *p = (struct pending){.pid = pid, .force = force, .waiters = w, .began_ms = mesh_registry_now(g)};
  ring_init(&p->queue);
  ring_init(&p->at_arbiter);
  ring_init(&p->of_process);
  memcpy(p->name, name, size);
  g->pending_count++;
  return p;
}

/* --- the end of a registration -------------------------------------------------------------------------- */

static void release(struct mesh_registry *g, struct pending *p) {
  if (p->arbiter && !p->arbiter->gone) {
    cast_rows_add_request(&p->arbiter->requests, p, true);
    mesh_registry_mark_dirty(g);
  }
}

void pending_stop_asking(struct mesh_registry *g, struct pending *p, bool give_back) {
  if (!p->id) return;
  if (give_back) release(g, p);
  map_remove_id(&g->asked, p->id);
  ring_out(&p->at_arbiter);
  p->arbiter = NULL;
  p->id = 0;
}

void pending_end(struct mesh_registry *g, struct pending *p, int code, const char *what, bool yes) {
  if (p->stage == STAGE_ENDED) return;
  pending_stop_asking(g, p, true);
  if (p->pid != NPID_NONE) map_remove(&g->pending, p->name);
  ring_out(&p->of_process);
  ring_out(&p->queue);
  p->stage = STAGE_ENDED;
  p->code = code;
  p->what = what;
  p->yes = yes;
  ring_push(&g->ended, &p->queue);
  mesh_registry_mark_dirty(g);
}

static void tell_waiters(struct mesh_registry *g, const struct pending *p) {
  struct error e;
  if (p->code) error_set(&e, p->code, "%s: %s", p->name, p->what ? p->what : err_sentence(p->code));
  for (struct waiter *w = p->waiters, *next; w; w = next) {
    next = w->next;
    g->pending_count--;
    w->done(w->data, p->code ? &e : NULL, p->yes, p->token);
    free(w);
  }
}

static void begin_behind(struct mesh_registry *g, const struct pending *p) {
  for (struct waiter *w = p->behind, *next; w; w = next) {
    next = w->next;
    g->pending_count--;
    mesh_registry_begin(g, p->name, w->pid, w->force, w->done, w->data);
    free(w);
  }
}

/* Makes a success a failure when the name was withdrawn between the end of the registration and its callback.
 */
static void confirm(const struct mesh_registry *g, struct pending *p) {
  if (!p->yes || p->pid == NPID_NONE) return;
  const struct claim *own = claims_of(&g->claims, &g->self, p->name);
  p->yes = own && own->terms.token == p->token;
}

bool pending_deliver(struct mesh_registry *g) {
  bool any = !ring_empty(&g->ended);
  for (struct ring *r; (r = ring_first(&g->ended));) {
    struct pending *p = RING_ENTRY(r, struct pending, queue);
    ring_out(r);
    confirm(g, p);
    g->registered += p->yes && p->pid != NPID_NONE;
    tell_waiters(g, p);
    begin_behind(g, p);
    free(p);
  }
  return any;
}

/* --- rounds: who has the changes ------------------------------------------------------------------------ */

void round_check(struct mesh_registry *g, struct round *r) {
  if (r->open) return;
  for (struct ring *at; (at = ring_first(&r->pending));)
    pending_end(g, RING_ENTRY(at, struct pending, queue), 0, NULL, true);
  ring_out(&r->queue);
  free(r);
}

void round_drop_expects(struct mesh_registry *g, struct link *l, uint64_t number) {
  for (struct expect *e; (e = l->expects) && e->round->number <= number;) {
    struct round *round = e->round;
    l->expects = e->next;
    if (!l->expects) l->expects_end = &l->expects;
    free(e);
    round->open--;
    round_check(g, round);
  }
}

void round_add_expect(struct link *l, struct round *round) {
  struct expect *e = malloc(sizeof *e);
  if (!e) return;
  *e = (struct expect){NULL, round};
  *l->expects_end = e;
  l->expects_end = &e->next;
  round->open++;
}

struct round *round_next(struct mesh_registry *g) {
  struct round *r = g->open_round;
  mesh_registry_mark_dirty(g);
  if (r || !(r = malloc(sizeof *r))) return r;
  *r = (struct round){.open = 0};
  ring_init(&r->queue);
  ring_init(&r->pending);
  return g->open_round = r;
}

void round_await(struct mesh_registry *g, struct pending *p) {
  struct round *r = round_next(g);
  p->stage = STAGE_PUBLISHING;
  ring_out(&p->queue);
  if (r)
    ring_push(&r->pending, &p->queue);
  else /* the change is sent, but the registration does not wait for the peers */
    pending_end(g, p, 0, NULL, true);
}
