/* Invariant: each claim is in the list of its home and in the list of its name, which begins in `by_name` and
 * is in the order of precedence.  A home's count and sum are those of its list.  globals has a name exactly
 * while by_name has it, with the pid and token of the first claim of the list. */
#include "agent/registry/claims.h"

#include <stdlib.h>
#include <string.h>

/* MurmurHash3's finalizer. */
static uint64_t mix(uint64_t h) {
  h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
  h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
  return h ^ h >> 33;
}

/* What one claim adds to the sum of its home. Incarnations are left out, because each node numbers them
 * differently. */
static uint64_t digest(const struct claim *c) {
  uint64_t h = UINT64_C(14695981039346656037);
  for (const char *s = c->name; *s; s++) h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
  h = mix(h ^ npid_number(c->terms.pid));
  h = mix(h ^ c->terms.token);
  h = mix(h ^ c->terms.age);
  return mix(h ^ c->terms.over);
}

bool claim_precedes(const struct claim *a, const struct claim *b) {
  if (a->terms.age != b->terms.age) return a->terms.age < b->terms.age;
  if (a->terms.token != b->terms.token) return a->terms.token > b->terms.token;
  return strcmp(a->home->node, b->home->node) < 0;
}

/* The first claim of a name's list, hidden or not. */
static struct claim *first_of(const struct claims *t, const char *name) {
  return map_get(&t->by_name, name);
}

struct claim *claims_best(const struct claims *t, const char *name) {
  struct claim *c = first_of(t, name);
  while (c && c->home->gone) c = c->rival;
  return c;
}

struct claim *claims_of(const struct claims *t, const struct home *h, const char *name) {
  struct claim *c = first_of(t, name);
  while (c && c->home != h) c = c->rival;
  return c;
}

/* --- the list of a home --- */

static void count_in(struct claim *c) {
  c->home->count++;
  c->home->sum += digest(c);
}

static void count_out(struct claim *c) {
  c->home->count--;
  c->home->sum -= digest(c);
}

static void list_in(struct claim *c) {
  c->next = c->home->claims;
  c->pprev = &c->home->claims;
  if (c->next) c->next->pprev = &c->next;
  c->home->claims = c;
}

static void list_out(struct claim *c) {
  *c->pprev = c->next;
  if (c->next) c->next->pprev = c->pprev;
}

/* --- the list of a name --- */

/* Makes the first claim of a name's list the entry of the name in globals. On failure globals is
 * unchanged. */
static int show(struct claims *t, const struct claim *first) {
  return names_replace(t->globals, first->name, first->terms.pid, first->terms.token, &first->home->gone,
                       NULL);
}

/* Inserts a claim into the list of its name by precedence, and returns the new first claim. */
static struct claim *rank_in(struct claim *first, struct claim *c) {
  struct claim **at = &first;
  while (*at && claim_precedes(*at, c)) at = &(*at)->rival;
  c->rival = *at;
  *at = c;
  return first;
}

static struct claim *rank_out(struct claim *first, struct claim *c) {
  struct claim **at = &first;
  while (*at != c) at = &(*at)->rival;
  *at = c->rival;
  return first;
}

/* Makes a claim the first of its name's list. map_put cannot fail, because the key exists. */
static void set_first(struct claims *t, struct claim *first) {
  if (map_put(&t->by_name, first->name, first)) abort();
}

/* --- */

static struct claim *claim_new(struct home *h, const char *name, const struct claim_terms *terms) {
  size_t size = strlen(name) + 1;
  struct claim *c = calloc(1, sizeof *c + size);
  if (!c) return NULL;
  c->home = h;
  c->terms = *terms;
  ring_init(&c->twins);
  memcpy(c->name, name, size);
  return c;
}

static struct claim *add(struct claims *t, struct home *h, const char *name,
                         const struct claim_terms *terms) {
  struct claim *c = claim_new(h, name, terms), *old = first_of(t, name);
  if (!c) return NULL;
  struct claim *first = rank_in(old, c);
  bool failed = map_put(&t->by_name, name, first);
  if (!failed && first == c && show(t, c)) {
    failed = true;
    if (old)
      set_first(t, old);
    else
      map_remove(&t->by_name, name);
  }
  if (failed) {
    rank_out(first, c);
    free(c);
    return NULL;
  }
  list_in(c);
  count_in(c);
  return c;
}

/* Gives new terms to a claim; on failure the claim keeps its terms. */
static struct claim *change(struct claims *t, struct claim *c, const struct claim_terms *terms) {
  struct claim_terms before = c->terms;
  count_out(c);
  struct claim *rest = rank_out(first_of(t, c->name), c);
  c->terms = *terms;
  struct claim *first = rank_in(rest, c);
  bool failed = show(t, first);
  if (failed) {
    rest = rank_out(first, c);
    c->terms = before;
    first = rank_in(rest, c);
  }
  set_first(t, first);
  count_in(c);
  return failed ? NULL : c;
}

/* Removes the hidden claims of a name, so that a new claim is ranked among those that count. */
static void drop_hidden(struct claims *t, const char *name) {
  for (struct claim *c = first_of(t, name), *rival; c; c = rival) {
    rival = c->rival;
    if (c->home->gone) claims_remove(t, c);
  }
}

void claims_hide(struct claims *t, struct home *h) {
  names_hide(t->globals, &h->gone);
}

struct claim *claims_put(struct claims *t, struct home *h, const char *name,
                         const struct claim_terms *terms) {
  drop_hidden(t, name);
  struct claim *c = claims_of(t, h, name);
  return c ? change(t, c, terms) : add(t, h, name, terms);
}

void claims_remove(struct claims *t, struct claim *c) {
  struct claim *before = first_of(t, c->name), *first = rank_out(before, c);
  count_out(c);
  list_out(c);
  ring_out(&c->twins);
  if (!first) map_remove(&t->by_name, c->name);
  if (first && first != before) set_first(t, first);
  /* When memory runs out for the next claim, globals has no entry for the name, rather than the wrong
   * process. */
  if (!first || (first != before && show(t, first))) names_unregister(t->globals, c->name, 0);
  free(c);
}

void claims_finish(struct claims *t) {
  size_t at = 0;
  void *value;
  while (map_next(&t->by_name, &at, NULL, NULL, &value))
    for (struct claim *c = value, *rival; c; c = rival) {
      rival = c->rival;
      free(c);
    }
  map_finish(&t->by_name);
}
