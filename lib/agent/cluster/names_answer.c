/* Invariant: an answer is in `answers` while somebody is still to be told it; a queue of requests is in
 * `resumed` and, under its name, in `resuming` while it has requests.
 *
 * Many may wait for one name, and what each of them is told makes an answer to a client, or a message.  So
 * the first one is told at once, and the others in slices.  Those who wait to begin when a write has ended
 * begin in their order: a later request for the name goes behind them, and a request that begins a write has
 * the others wait for that one. */
#include "agent/cluster/names_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
  COST_TELL = 5, /* of the pieces of a slice */
  COST_BEGIN = 5 /* the same */
};

struct waiter *names_waiter(npid pid, bool force, registry_done *done, void *data) {
  struct waiter *w = malloc(sizeof *w);
  if (w) *w = (struct waiter){.done = done, .data = data, .pid = pid, .force = force};
  return w;
}

static struct waiter *take_first(struct waiters *all) {
  struct waiter *w = STAILQ_FIRST(all);
  STAILQ_REMOVE_HEAD(all, next);
  return w;
}

/* --- answers -------------------------------------------------------------------------------------------- */

static void tell_one(struct cluster_names *g, struct answer *a) {
  struct waiter *w = take_first(&a->waiters);
  const struct error *e = a->e.code ? &a->e : NULL;
  if (w->found) {
    w->found(w->data, e, a->pid, (uint64_t)a->token, a->stale);
  } else {
    g->pending--;
    w->done(w->data, e, a->yes, (uint64_t)a->token);
  }
  free(w);
}

static bool is_told(const struct answer *a) {
  return STAILQ_EMPTY(&a->waiters);
}

void names_answer(struct cluster_names *g, struct answer *a) {
  if (!is_told(a)) tell_one(g, a);
  struct answer *rest = is_told(a) || g->finishing ? NULL : malloc(sizeof *rest);
  while (!is_told(a) && !rest) tell_one(g, a); /* without memory, or at the end, all are told at once */
  if (!rest) return;
  *rest = *a;
  STAILQ_INIT(&rest->waiters);
  STAILQ_CONCAT(&rest->waiters, &a->waiters);
  ring_init(&rest->all);
  ring_push(&g->answers, &rest->all);
  names_start_slices(g);
}

static void tell_some(struct cluster_names *g, int *left) {
  for (struct ring *r; *left > 0 && (r = ring_first(&g->answers)); *left -= COST_TELL) {
    struct answer *a = RING_ENTRY(r, struct answer, all);
    tell_one(g, a);
    if (!is_told(a)) continue;
    ring_out(&a->all);
    free(a);
  }
}

/* --- requests that begin when a write has ended --------------------------------------------------------- */

struct resumed {
  struct ring all;
  struct waiters waiters;
  char name[];
};

/* Begins the first request of the queue, unless a write of the name is under way.  If one is then, they wait
 * for that one, before those who asked later. */
static void begin_one(struct cluster_names *g, const char *name, struct waiters *all) {
  struct waiter *w = map_get(&g->writes, name) ? NULL : take_first(all);
  if (w) {
    g->pending--;
    names_enter_now(g, name, w->pid, w->force, w->done, w->data);
    free(w);
  }
  struct write *under_way = map_get(&g->writes, name);
  if (!under_way || STAILQ_EMPTY(all)) return;
  STAILQ_CONCAT(all, &under_way->behind);
  STAILQ_CONCAT(&under_way->behind, all);
  names_wait(g, under_way);
}

static struct resumed *resumed_new(struct cluster_names *g, const char *name) {
  size_t size = strlen(name) + 1;
  struct resumed *r = malloc(sizeof *r + size);
  if (!r) return NULL;
  memcpy(r->name, name, size);
  STAILQ_INIT(&r->waiters);
  ring_init(&r->all);
  if (map_put(&g->resuming, name, r)) return free(r), NULL;
  ring_push(&g->resumed, &r->all);
  return r;
}

void names_resume(struct cluster_names *g, const char *name, struct waiters *all) {
  struct resumed *r = map_get(&g->resuming, name); /* these asked earlier */
  if (!r && !STAILQ_EMPTY(all)) begin_one(g, name, all);
  if (!r && !STAILQ_EMPTY(all) && !g->finishing) r = resumed_new(g, name);
  while (!STAILQ_EMPTY(all) && !r) begin_one(g, name, all);
  if (!r) return;
  STAILQ_CONCAT(&r->waiters, all);
  names_start_slices(g);
}

static void begin_some(struct cluster_names *g, int *left) {
  for (struct ring *at; *left > 0 && (at = ring_first(&g->resumed)); *left -= COST_BEGIN) {
    struct resumed *r = RING_ENTRY(at, struct resumed, all);
    begin_one(g, r->name, &r->waiters);
    if (!STAILQ_EMPTY(&r->waiters)) continue;
    map_remove(&g->resuming, r->name);
    ring_out(&r->all);
    free(r);
  }
}

bool names_resumes(const struct cluster_names *g, const char *name) {
  return map_get(&g->resuming, name);
}

void names_resume_behind(struct cluster_names *g, const char *name, struct waiter *w) {
  struct resumed *r = map_get(&g->resuming, name);
  g->pending++;
  STAILQ_INSERT_TAIL(&r->waiters, w, next);
}

void names_answer_slice(struct cluster_names *g, int *left) {
  tell_some(g, left);
  begin_some(g, left);
}
