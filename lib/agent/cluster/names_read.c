/* Invariant: a look-up is in `lookups` under its name until it is answered; it is in `asking` until it is
 * sent. A name of another node that is in the table `globals` is in `known`, in the lists of its owner and of
 * its shard, and in `watched` or `polled`.  A look-up whose answer names an owner of which the roster may not
 * have heard yet waits in `late`.
 *
 * The orderings that look-ups rely on:
 *
 *  - A look-up is answered for a revision of the store, and the watch of its shard begins with the next one,
 * or began earlier: no change after the answer is missed.
 *  - A watch may tell of a change before the answer to a look-up arrives that was executed earlier.  So a
 *    look-up notes the changes of its name meanwhile (`heard`), and is sent again when its answer is older.
 *  - The roster may hear of a node later than a look-up reads of a name of that node, as there is no order
 *    between the two.  The answer is then not believed: it is asked for again, until the roster has heard of
 *    all that happened before the name was given.
 *  - A name has the table's entry of the largest revision: a change that is not newer is ignored.
 *  - When a watch ends, the names of its shard stay, and are looked up again; the first answer begins the
 * next watch, so the others, which are of the same or a later revision, miss nothing either.  Until such a
 * name was looked up it may be old, though the next watch runs: its number (known.watch) tells. */
#include "agent/cluster/names_parts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
  READ_MAX = ETCD_TXN_MAX,
  AGAIN_MAX = READ_MAX, /* look-ups under way for which nobody waits */
  ALONE_MAX = READ_MAX, /* requests to one member under way */
  COST_REMOVE = 2,      /* of the pieces of a slice */
  COST_FAIL = 10,       /* the same, to tell that a look-up has failed */
  FAILED_MS = 1000
};

struct reading {
  struct cluster_names *names;
  size_t n;
  struct lookup *lookups[READ_MAX];
};

static void pump_reads(struct cluster_names *g);
static void look_all_again(struct cluster_names *g);

/* --- names of other nodes in the table ------------------------------------------------------------------ */

static struct owner *owner_of(struct cluster_names *g, const char *node, int64_t member) {
  struct owner *o = map_get(&g->owners, node);
  size_t size = strlen(node) + 1;
  if (o && o->member == member) return o;
  if (o) cluster_names_gone(g, node);
  if (!(o = calloc(1, sizeof *o + size))) return NULL;
  memcpy(o->node, node, size);
  o->member = member;
  ring_init(&o->known);
  ring_init(&o->all);
  if (map_put(&g->owners, node, o)) return free(o), NULL;
  return o;
}

static void owner_unuse(struct cluster_names *g, struct owner *o) {
  if (!ring_empty(&o->known)) return;
  if (!o->gone) map_remove(&g->owners, o->node);
  ring_out(&o->all);
  free(o);
}

void names_known_remove(struct cluster_names *g, struct known *k) {
  names_unregister(g->config.globals, k->name, (uint64_t)k->token);
  map_remove(&g->known, k->name);
  ring_out(&k->of_owner);
  ring_out(&k->of_shard);
  ring_out(&k->by_time);
  owner_unuse(g, k->owner);
  free(k);
}

void cluster_names_gone(struct cluster_names *g, const char *node) {
  struct owner *o = map_remove(&g->owners, node);
  if (!o) return;
  names_hide(g->config.globals, &o->gone);
  ring_push(&g->owners_gone, &o->all);
  names_start_slices(g);
}

void cluster_names_present(struct cluster_names *g, const char *node, int64_t member) {
  const struct owner *o = map_get(&g->owners, node);
  if (o && o->member != member) cluster_names_gone(g, node);
}

static struct known *known_new(struct cluster_names *g, const char *name) {
  size_t size = strlen(name) + 1;
  struct known *k = calloc(1, sizeof *k + size);
  if (!k) return NULL;
  memcpy(k->name, name, size);
  k->shard = names_shard(name);
  if (map_put(&g->known, name, k)) return free(k), NULL;
  ring_init(&k->of_owner);
  ring_init(&k->of_shard);
  ring_init(&k->by_time);
  return k;
}

/* Puts a name of another node into the table.  Without memory it is not remembered. */
static void remember(struct cluster_names *g, const char *name, const struct row *row, int64_t token) {
  struct known *k = map_get(&g->known, name);
  if (k && k->token > token) return;
  if (k) names_known_remove(g, k);
  while (g->known.len >= NAMES_CACHE_MAX) {
    struct ring *r = ring_first(&g->polled);
    if (!r) r = ring_first(&g->watched);
    names_known_remove(g, RING_ENTRY(r, struct known, by_time));
  }
  struct owner *o = owner_of(g, row->node, row->member);
  if (!o) return;
  k = known_new(g, name);
  if (!k || names_replace(g->config.globals, name, row->pid, (uint64_t)token, &o->gone, NULL)) {
    if (k) map_remove(&g->known, name);
    free(k);
    owner_unuse(g, o);
    return;
  }
  k->owner = o;
  k->token = token;
  k->since_ms = names_now(g);
  k->watched = g->shards[k->shard].watch != NULL;
  k->watch = g->shards[k->shard].ended;
  ring_push(&o->known, &k->of_owner);
  ring_push(&g->shards[k->shard].known, &k->of_shard);
  ring_push(k->watched ? &g->watched : &g->polled, &k->by_time);
  names_start(g);
}

static void forget(struct cluster_names *g, const char *name, int64_t revision) {
  struct known *k = map_get(&g->known, name);
  if (k && k->token < revision) names_known_remove(g, k);
}

/* --- watches -------------------------------------------------------------------------------------------- */

/* Does the key, if it is one, have a name of another node that is a member by the same key? */
static bool counts(const struct cluster_names *g, const struct etcd_row *at, struct row *out) {
  return names_read_row(g, at, out) && strcmp(out->node, g->config.self) != 0 &&
         g->config.host->present(g->config.data, out->node, out->member);
}

/* What a watch says of a key.  Where the owner is not known to be a member, the name is forgotten: either it
 * is none any more, or the roster has not yet heard of it. */
static void hear(struct cluster_names *g, const struct etcd_row *at) {
  const char *name = names_of_row(g, at);
  struct row row;
  if (!name) return;
  struct lookup *l = map_get(&g->lookups, name);
  struct own *o = names_own(g, name);
  if (l) l->heard = at->modified;
  if (o) {
    if (at->modified > o->token) names_write_again(g, o);
    return;
  }
  struct known *k = map_get(&g->known, name);
  if (!k) return;
  bool good = !at->deleted && counts(g, at, &row);
  if (good)
    remember(g, name, &row, at->modified);
  else
    forget(g, name, at->modified);
}

static void on_changed(void *data, int64_t revision, const struct etcd_row *rows, size_t n) {
  struct shard *s = data;
  (void)revision;
  for (size_t i = 0; i < n; i++) hear(s->names, &rows[i]);
}

static void on_ended(void *data, const struct error *e, bool compacted) {
  struct shard *s = data;
  struct cluster_names *g = s->names;
  (void)e, (void)compacted;
  s->watch = NULL;
  s->ended++;
  g->watches--;
  if (g->finishing) return;
  g->resyncs += !ring_empty(&s->known);
  ring_move_all(&s->known, &s->lapsed);
  g->lapsed = true;
  names_start(g);
}

/* Watches a shard from the revision on that follows an answer. */
static void watch_shard(struct cluster_names *g, const char *name, int64_t revision) {
  static const struct etcd_watch_events events = {.changed = on_changed, .ended = on_ended};
  struct shard *s = &g->shards[names_shard(name)];
  char key[NAMES_KEY_SIZE];
  if (s->watch || g->watches >= NAMES_WATCHES) return;
  s->watch = etcd_watch(g->config.etcd, names_shard_key(g, names_shard(name), key), revision + 1, &events, s);
  if (s->watch) g->watches++;
}

static void end_watch(struct cluster_names *g, struct shard *s) {
  if (!s->watch) return;
  etcd_unwatch(s->watch);
  s->watch = NULL;
  g->watches--;
}

/* Does a watch tell all that has become of the name since it was looked up?  Or is it not to be watched? */
static bool is_current(const struct cluster_names *g, const struct known *k) {
  const struct shard *s = &g->shards[k->shard];
  return !k->watched || (s->watch && k->watch == s->ended);
}

/* --- look-ups ------------------------------------------------------------------------------------------- */

/* Has the look-up, which is in no list, sent soon. */
static void enqueue(struct cluster_names *g, struct lookup *l) {
  l->sent = false;
  l->since_ms = names_now(g);
  ring_push(&g->asking, &l->queue);
}

static struct lookup *lookup_new(struct cluster_names *g, const char *name) {
  size_t size = strlen(name) + 1;
  struct lookup *l = calloc(1, sizeof *l + size);
  if (!l) return NULL;
  memcpy(l->name, name, size);
  l->names = g;
  if (map_put(&g->lookups, name, l)) return free(l), NULL;
  STAILQ_INIT(&l->waiters);
  ring_init(&l->queue);
  enqueue(g, l);
  return l;
}

static void answer_lookup(struct cluster_names *g, struct lookup *l, const struct error *e, npid pid,
                          int64_t token, bool stale) {
  struct answer a = {.pid = pid, .token = token, .stale = stale};
  STAILQ_INIT(&a.waiters);
  STAILQ_CONCAT(&a.waiters, &l->waiters);
  if (e) a.e = *e;
  map_remove(&g->lookups, l->name);
  ring_out(&l->queue);
  g->looks_again -= l->again;
  free(l);
  names_answer(g, &a);
}

void names_find(struct cluster_names *g, const char *name, registry_found *found, void *data) {
  struct lookup *l = map_get(&g->lookups, name);
  bool full =
      !l && g->lookups.len - g->looks_again >= (size_t)limit_max(g->config.limits, LIMIT_REGISTRATIONS);
  struct waiter *w = g->finishing || full ? NULL : calloc(1, sizeof *w);
  struct error e;
  if (w && !l) l = lookup_new(g, name);
  if (!l || !w) {
    free(w);
    if (full)
      limit_error(g->config.limits, LIMIT_REGISTRATIONS, name, &e);
    else
      error_set(&e, g->finishing ? ERR_LOST : ERR_NOMEM, "%s: %s", name,
                g->finishing ? "this node is stopping" : err_sentence(ERR_NOMEM));
    found(data, &e, NPID_NONE, 0, false);
    return;
  }
  w->found = found;
  w->data = data;
  STAILQ_INSERT_TAIL(&l->waiters, w, next);
  names_start(g);
  pump_reads(g);
}

/* Is the owner of the name maybe a member of which the roster has not heard yet? */
static bool is_early(const struct cluster_names *g, const struct etcd_row *at) {
  struct row row;
  return at && at->created && names_read_row(g, at, &row) && strcmp(row.node, g->config.self) != 0 &&
         !g->config.host->present(g->config.data, row.node, row.member) &&
         g->config.host->behind(g->config.data, row.member);
}

/* A name was not looked up again as its watch has ended: it is, later. */
static void lapse(struct cluster_names *g, const char *name) {
  struct known *k = map_get(&g->known, name);
  if (!k || is_current(g, k)) return;
  ring_out(&k->of_shard);
  ring_push(&g->shards[k->shard].lapsed, &k->of_shard);
  g->lapsed = true;
}

/* Has the look-up made again, or ended when that was done for too long.  What the table has for the name was
 * replaced by that revision. */
static void wait_for_roster(struct cluster_names *g, struct lookup *l, int64_t modified) {
  struct error e;
  int64_t now = names_now(g);
  forget(g, l->name, modified);
  if (!l->late_ms) l->late_ms = now;
  if (now - l->late_ms < NAMES_ANSWER_MS) {
    l->sent = false;
    ring_push(&g->late, &l->queue);
    return;
  }
  error_set(&e, ERR_ETCD, "%s: this node has not read yet which nodes are in the cluster (etcd): try again",
            l->name);
  lapse(g, l->name);
  answer_lookup(g, l, &e, NPID_NONE, 0, false);
}

static void ask_late(struct cluster_names *g, int *left) {
  for (struct ring *r; *left > 0 && (r = ring_first(&g->late)); --*left) {
    ring_out(r);
    enqueue(g, RING_ENTRY(r, struct lookup, queue));
  }
}

/* An answer of etcd for a name.  alone: of one member, maybe stale. */
static void answered(struct cluster_names *g, struct lookup *l, const struct etcd_row *at, int64_t revision,
                     bool alone) {
  struct row row;
  if (g->finishing) {
    struct error e;
    error_set(&e, ERR_LOST, "%s: this node is stopping", l->name);
    answer_lookup(g, l, &e, NPID_NONE, 0, false);
    return;
  }
  struct own *o = names_own(g, l->name);
  if (!alone && l->heard > revision) {
    l->heard = 0;
    enqueue(g, l);
    return;
  }
  if (!alone && !o && is_early(g, at)) {
    wait_for_roster(g, l, at->modified);
    return;
  }
  bool good = at && at->created && counts(g, at, &row);
  if (o) { /* meanwhile */
    answer_lookup(g, l, NULL, o->pid, o->token, !g->sure);
    return;
  }
  if (!alone && good) {
    watch_shard(g, l->name, revision);
    remember(g, l->name, &row, at->modified);
  } else if (!alone) {
    forget(g, l->name, revision + 1);
  }
  answer_lookup(g, l, NULL, good ? row.pid : NPID_NONE, good ? at->modified : 0, alone);
}

static void on_read_alone(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct lookup *l = data;
  struct cluster_names *g = l->names;
  struct error away;
  g->alone--;
  if (e) {
    error_set(&away, e->code, "%s: %s", l->name, error_text(e));
    answer_lookup(g, l, &away, NPID_NONE, 0, false);
  } else {
    g->read_ms = names_now(g);
    answered(g, l, answer->n ? answer->rows : NULL, answer->revision, true);
  }
  names_request_done(g);
}

/* Asks one member of etcd, as a quorum does not answer.  A look-up for which nobody waits is made later. */
static void read_alone(struct cluster_names *g, struct lookup *l) {
  char key[NAMES_KEY_SIZE];
  lapse(g, l->name);
  if (STAILQ_EMPTY(&l->waiters)) {
    answer_lookup(g, l, NULL, NPID_NONE, 0, true);
    return;
  }
  struct etcd_range range = {.key = names_key(g, l->name, key), .serializable = true};
  l->alone = true;
  g->alone++;
  g->requests++;
  etcd_get(g->config.etcd, &range, on_read_alone, l);
}

static void on_read(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct reading *r = data;
  struct cluster_names *g = r->names;
  g->reading = false;
  g->failed_ms = e ? names_now(g) : 0;
  for (size_t i = 0; i < r->n; i++) {
    struct lookup *l = r->lookups[i];
    if (e)
      read_alone(g, l);
    else
      answered(g, l, i < answer->n ? &answer->rows[i] : NULL, answer->revision, false);
  }
  if (!e) g->read_ms = names_now(g);
  if (!e && answer->revision > g->highest) g->highest = answer->revision;
  free(r);
  if (!g->finishing) {
    if (!e) look_all_again(g);
    pump_reads(g);
  }
  names_request_done(g);
}

static bool quorum_failed(const struct cluster_names *g) {
  return g->failed_ms && names_now(g) - g->failed_ms < FAILED_MS;
}

/* Sends the look-ups that wait: to one member each when a quorum has just not answered, else together. */
static void pump_reads(struct cluster_names *g) {
  char key[NAMES_KEY_SIZE];
  if (quorum_failed(g)) {
    for (struct ring *r; g->alone < ALONE_MAX && (r = ring_first(&g->asking));) {
      ring_out(r);
      read_alone(g, RING_ENTRY(r, struct lookup, queue));
    }
    return;
  }
  if (g->reading || ring_empty(&g->asking)) return;
  struct reading *b = calloc(1, sizeof *b);
  struct etcd_txn *t = etcd_txn_new();
  if (!b || !t) {
    free(b);
    etcd_txn_free(t);
    return; /* the tick tries again */
  }
  b->names = g;
  for (struct ring *r; b->n < READ_MAX && (r = ring_first(&g->asking));) {
    struct lookup *l = RING_ENTRY(r, struct lookup, queue);
    ring_out(r);
    l->sent = true;
    l->heard = 0;
    b->lookups[b->n++] = l;
    etcd_txn_get(t, ETCD_THEN, names_key(g, l->name, key));
  }
  g->reading = true;
  g->requests++;
  etcd_txn_send(g->config.etcd, t, on_read, b);
}

/* --- time ----------------------------------------------------------------------------------------------- */

/* Looks names of a shard up again, of which the watch has ended; the table keeps what it has.  False: some
 * are left. */
static bool look_again(struct cluster_names *g, struct shard *s) {
  for (struct ring *r; (r = ring_first(&s->lapsed));) {
    struct known *k = RING_ENTRY(r, struct known, of_shard);
    struct lookup *l = map_get(&g->lookups, k->name); /* of somebody who waits */
    if (!l && g->looks_again >= AGAIN_MAX) return false;
    if (!l && !(l = lookup_new(g, k->name))) return false;
    if (STAILQ_EMPTY(&l->waiters) && !l->again) g->looks_again++, l->again = true;
    ring_out(r);
    ring_push(&s->known, r);
  }
  return true;
}

static void look_all_again(struct cluster_names *g) {
  if (!g->lapsed || quorum_failed(g)) return;
  g->lapsed = false;
  for (int i = 0; i < NAMES_SHARDS; i++)
    if (!look_again(g, &g->shards[i])) g->lapsed = true;
}

static void expire(struct cluster_names *g, struct ring *list, int64_t before, int *left) {
  for (struct ring *r; *left > 0 && (r = ring_first(list)); *left -= COST_REMOVE) {
    struct known *k = RING_ENTRY(r, struct known, by_time);
    if (k->since_ms > before) return;
    names_known_remove(g, k);
  }
}

/* Fails the look-ups that wait to be sent, as names_fail_old the writes.  One that has failed as its watch
 * has ended is made later. */
static void fail_old(struct cluster_names *g, int *left) {
  int64_t now = names_now(g);
  for (struct ring *r; *left > 0 && (r = ring_first(&g->asking)); *left -= COST_FAIL) {
    struct lookup *l = RING_ENTRY(r, struct lookup, queue);
    struct error e;
    if (!names_late(l->name, now, l->since_ms, g->read_ms, &e)) return;
    lapse(g, l->name);
    answer_lookup(g, l, &e, NPID_NONE, 0, false);
  }
}

/* Forgets what has been in the table for its time, unless it cannot be asked for. */
static void expire_all(struct cluster_names *g, int *left) {
  int64_t now = names_now(g);
  if (g->failed_ms || !g->sure) return;
  expire(g, &g->watched, now - NAMES_KEPT_MS, left);
  expire(g, &g->polled, now - NAMES_POLLED_MS, left);
}

static void on_probed(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct cluster_names *g = data;
  (void)answer;
  g->reading = false;
  g->failed_ms = e ? names_now(g) : 0;
  if (!e) g->read_ms = names_now(g);
  names_request_done(g);
}

/* Asks whether a quorum answers again. */
static void probe(struct cluster_names *g) {
  struct etcd_range range = {.key = g->self_key, .count_only = true};
  g->reading = true;
  g->requests++;
  etcd_get(g->config.etcd, &range, on_probed, g);
}

void names_tick_reads(struct cluster_names *g) {
  if (g->failed_ms && !quorum_failed(g) && !g->reading && ring_empty(&g->asking)) probe(g);
  int left = NAMES_SLICE;
  fail_old(g, &left);
  expire_all(g, &left);
  if (left <= 0) names_start_slices(g);
  for (int i = 0; i < NAMES_SHARDS; i++) {
    struct shard *s = &g->shards[i];
    if (ring_empty(&s->known) && ring_empty(&s->lapsed)) end_watch(g, s);
  }
  look_all_again(g);
  ask_late(g, &left);
  pump_reads(g);
}

void names_read_slice(struct cluster_names *g, int *left) {
  for (struct ring *r; *left > 0 && (r = ring_first(&g->owners_gone)); *left -= COST_REMOVE) {
    struct owner *o = RING_ENTRY(r, struct owner, all);
    struct ring *k = ring_first(&o->known);
    if (k)
      names_known_remove(g, RING_ENTRY(k, struct known, of_owner)); /* frees the owner with its last name */
    else
      owner_unuse(g, o);
  }
  fail_old(g, left);
  expire_all(g, left);
}

bool cluster_names_stale(const struct cluster_names *g, const char *name) {
  const struct known *k = map_get(&g->known, name);
  if (!k) return !g->sure;
  return !g->sure || g->failed_ms || !is_current(g, k);
}

void names_reads_finish(struct cluster_names *g) {
  struct error e = {0};
  size_t at = 0;
  int all = INT_MAX;
  void *value;
  for (int i = 0; i < NAMES_SHARDS; i++) end_watch(g, &g->shards[i]);
  error_set(&e, ERR_LOST, "this node is stopping");
  while (map_next(&g->lookups, &at, NULL, NULL, &value)) { /* those that are sent end as etcd_finish runs */
    struct lookup *l = value;
    struct answer a = {.e = e};
    STAILQ_INIT(&a.waiters);
    STAILQ_CONCAT(&a.waiters, &l->waiters);
    names_answer(g, &a);
  }
  ask_late(g, &all);
  for (struct ring *r; (r = ring_first(&g->asking));)
    answer_lookup(g, RING_ENTRY(r, struct lookup, queue), &e, NPID_NONE, 0, false);
}

void names_known_end(struct cluster_names *g, int *left) {
  for (struct ring *lists[] = {&g->watched, &g->polled}, **l = lists; l < lists + 2; l++)
    for (struct ring *r; *left > 0 && (r = ring_first(*l)); *left -= COST_REMOVE)
      names_known_remove(g, RING_ENTRY(r, struct known, by_time));
}
