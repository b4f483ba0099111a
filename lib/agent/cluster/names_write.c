/* Invariant: a write is in `writes` under its name, in `queued` or `sent`, and, but for WRITE_CLEAN, in the
 * list of its process. At most one transaction of writes is under way; meanwhile others wait, and go together
 * in the next one.
 *
 * A transaction is executed as a whole or not at all.  When it was not, its answer has all its keys as they
 * were then: a write whose key was as expected is sent again, and any other one is decided by what its key
 * has. So each answer ends or changes at least one of its writes, or says that this node is no member. */
#include "agent/cluster/names_parts.h"

#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where etcd has more to do than it can, transactions time out though they are executed later, so that their
 * work is asked for again.  So a node begins with a small transaction, and the next one is larger while the
 * answers come fast, and smaller when they come late: many nodes that write at once share what etcd can do
 * before transactions time out.  After one that was not answered in time the next one is half as large, and
 * all wait for up to twice as long as the time before. HOLD_MAX_MS is less than NAMES_ANSWER_MS, so that each
 * registration is tried. */
enum {
  HOLD_MS = 200, /* after a transaction that etcd has not answered */
  HOLD_MAX_MS = 1200,
  LATE_MS = ETCD_REQUEST_MS - 100, /* an error after that time is one of etcd that is slow or stopped */
  BATCH_LEAST = 4,
  BATCH_FIRST = 8, /* when none was sent for FIRST_MS */
  FIRST_MS = 5000,
  FAST_MS = 100, /* an answer within that time doubles the next one; later, it grows by BATCH_STEP */
  SLOW_MS = 400, /* after an answer that took longer the next one is as much smaller */
  BATCH_STEP = 8,
  COST_FAIL = 10, /* of the pieces of a slice, to tell that a write has failed */
  COST_FREE = 1   /* of them, to free a write */
};

struct batch {
  struct cluster_names *names;
  bool guarded;   /* the member key of this node is a condition */
  int64_t member; /* its revision in that condition */
  unsigned renewals;
  size_t n;
  struct write *writes[NAMES_BATCH];
};

/* --- its life ------------------------------------------------------------------------------------------- */

static struct write *write_new(struct cluster_names *g, const char *name, registry_done *done, void *data) {
  size_t size = strlen(name) + 1;
  struct write *w = calloc(1, sizeof *w + size);
  if (!w) return NULL;
  memcpy(w->name, name, size);
  STAILQ_INIT(&w->waiters);
  STAILQ_INIT(&w->behind);
  struct waiter *waiter = done ? names_waiter(NPID_NONE, false, done, data) : NULL;
  if ((done && !waiter) || map_put(&g->writes, name, w)) return free(waiter), free(w), NULL;
  if (waiter) STAILQ_INSERT_TAIL(&w->waiters, waiter, next);
  return w;
}

struct write *names_write(struct cluster_names *g, enum write_kind kind, const char *name, npid pid,
                          int64_t seen, registry_done *done, void *data) {
  struct holder *h = kind == WRITE_CLEAN ? NULL : names_holder(g, pid);
  struct write *w = h || kind == WRITE_CLEAN ? write_new(g, name, done, data) : NULL;
  if (!w) return NULL;
  w->kind = kind;
  w->pid = pid;
  w->seen = seen;
  w->began_ms = names_now(g);
  g->pending += done != NULL;
  ring_init(&w->of_process);
  ring_init(&w->queue);
  ring_init(&w->by_age);
  if (done) ring_push(&g->waited, &w->by_age);
  w->holder = h;
  if (h) ring_push(&h->writes, &w->of_process);
  ring_push(&g->queued, &w->queue);
  names_start(g);
  return w;
}

void names_wait(struct cluster_names *g, struct write *w) {
  if (!ring_empty(&w->by_age)) return;
  w->began_ms = names_now(g);
  ring_push(&g->waited, &w->by_age);
}

bool names_dead(const struct write *w) {
  return w->dead || (w->holder && w->holder->gone);
}

static void set_guard(struct write *w, const char *owner, int64_t member) {
  free(w->owner);
  w->owner = owner ? strdup(owner) : NULL;
  w->guard = w->owner ? member : 0; /* without memory: no condition, and no write, as `seen` is set by it */
}

void names_write_free(struct cluster_names *g, struct write *w) {
  map_remove(&g->writes, w->name);
  ring_out(&w->queue);
  ring_out(&w->of_process);
  ring_out(&w->by_age);
  names_lease_give(g, w->lease);
  free(w->owner);
  free(w);
}

/* Ends a write with an outcome, and tells those who wait for it. */
static void end(struct cluster_names *g, struct write *w, bool yes, int64_t token) {
  struct answer a = {.waiters = STAILQ_HEAD_INITIALIZER(a.waiters), .yes = yes, .token = token};
  struct waiters behind = STAILQ_HEAD_INITIALIZER(behind);
  char name[256];
  snprintf(name, sizeof name, "%s", w->name);
  STAILQ_CONCAT(&a.waiters, &w->waiters);
  STAILQ_CONCAT(&behind, &w->behind);
  names_write_free(g, w);
  names_answer(g, &a);
  names_resume(g, name, &behind);
}

/* Takes all who wait for a write, to tell them that it has failed. */
static struct answer take_waiters(struct write *w, const struct error *e) {
  struct answer a = {.e = *e};
  STAILQ_INIT(&a.waiters);
  STAILQ_CONCAT(&a.waiters, &w->waiters);
  STAILQ_CONCAT(&a.waiters, &w->behind);
  ring_out(&w->by_age);
  return a;
}

/* Ends a write as `end` does; then writes the name again if it is an own one, as its key may be lost or old.
 */
static void end_again(struct cluster_names *g, struct write *w, bool yes, int64_t token) {
  char name[256];
  snprintf(name, sizeof name, "%s", w->name);
  end(g, w, yes, token);
  struct own *o = names_own(g, name);
  if (o) names_write_again(g, o);
}

/* Does this node give names up, as it is not sure that it is a member? */
static bool is_barred(const struct cluster_names *g) {
  return g->config.strict && !g->sure;
}

static bool is_put(const struct write *w) {
  return w->kind == WRITE_REGISTER || w->kind == WRITE_AGAIN;
}

/* --- what has become of a write ------------------------------------------------------------------------- */

static void requeue(struct cluster_names *g, struct write *w, int64_t seen) {
  w->seen = seen;
  ring_out(&w->queue);
  ring_push(&g->queued, &w->queue);
}

/* Turns a write, whose process has ended or whose asker was told of a failure, into the removal of what it
 * has left. */
static void clean(struct cluster_names *g, struct write *w, int64_t seen) {
  w->kind = WRITE_CLEAN;
  w->dead = w->tried = false;
  w->holder = NULL;
  ring_out(&w->of_process);
  names_lease_give(g, w->lease);
  w->lease = NULL;
  w->over = 0;
  set_guard(w, NULL, 0);
  requeue(g, w, seen);
}

/* Turns a removal whose asker was told that it has failed into a write of the same name.  Either that one is
 * executed, or the removal, if it is yet to be: the write then finds that the key has gone, and makes it.  A
 * name that was given up meanwhile is removed. */
static void keep_name(struct cluster_names *g, struct write *w) {
  if (names_own(g, w->name)) w->kind = WRITE_AGAIN;
  w->kept = false;
}

/* Ends a registration that was not sent.  An own name of the same name is written again, as it may have lost
 * its key meanwhile. */
static void drop_write(struct cluster_names *g, struct write *w) {
  struct own *o = names_own(g, w->name);
  names_write_free(g, w);
  if (o) names_write_again(g, o);
}

/* Tells those who wait for a write that it has failed.  What a registration may have left, is cleaned up; a
 * name that was to be removed stays. */
void names_write_fail(struct cluster_names *g, struct write *w, const struct error *e) {
  struct answer a = take_waiters(w, e);
  bool kept = w->kind == WRITE_REMOVE && !names_dead(w);
  if (w->sent) {
    w->dead |= w->kind == WRITE_REGISTER;
    w->kept = kept;
  } else if (kept) {
    keep_name(g, w);
  } else if (w->kind == WRITE_REGISTER && w->tried) {
    clean(g, w, 0);
  } else if (w->kind == WRITE_REGISTER) {
    drop_write(g, w);
  }
  names_answer(g, &a);
}

static void ignore(void *data, const struct error *e, struct term_reader values) {
  (void)data, (void)e, (void)values;
}

/* Tells the node whose registration was replaced by force.  When the message is lost, the node finds it as it
 * compares its names with their keys. */
static void tell_loser(struct cluster_names *g, const struct write *w) {
  if (!w->over || npid_is_local(w->over_pid)) return;
  struct term *t = term_build("ssi", "name_unregister", w->name, w->over);
  g->config.host->call(g->config.data, npid_incarnation(w->over_pid), t, ignore, NULL);
}

static void written(struct cluster_names *g, struct write *w, int64_t token, bool outdated) {
  struct error e;
  if (names_dead(w)) {
    clean(g, w, token);
    return;
  }
  if (is_barred(g)) { /* it is made again when the node is sure, unless that takes too long */
    requeue(g, w, token);
    return;
  }
  if (names_own_put(g, w->name, w->pid, token, w->lease)) {
    error_set(&e, ERR_NOMEM, "%s: %s", w->name, err_sentence(ERR_NOMEM));
    struct answer a = take_waiters(w, &e);
    clean(g, w, token);
    names_answer(g, &a);
    return;
  }
  g->registered += w->kind == WRITE_REGISTER;
  tell_loser(g, w);
  if (w->lease->lost || outdated)
    end_again(g, w, true, token); /* the key goes with its lease, or is of an earlier life of this member */
  else
    end(g, w, true, token);
}

/* The write was executed, as the revision `token` of the store.  outdated: the node has another member key,
 * or another creation, than it had then. */
static void succeeded(struct cluster_names *g, struct write *w, int64_t token, bool outdated) {
  struct own *o = names_own(g, w->name);
  switch (w->kind) {
  case WRITE_REGISTER:
  case WRITE_AGAIN: written(g, w, token, outdated); break;
  case WRITE_REMOVE:
    if (w->kept) keep_name(g, w);
    if (w->kind == WRITE_AGAIN) {
      requeue(g, w, 0);
      break;
    }
    if (o) names_own_remove(g, o);
    end(g, w, true, w->seen);
    break;
  case WRITE_CLEAN: end_again(g, w, true, 0); break;
  }
}

/* Another node has the name: a registration fails, and an own name is lost. `row` is NULL when nobody has. */
static void lost(struct cluster_names *g, struct write *w, const struct row *row) {
  struct own *o = names_own(g, w->name);
  bool replaced = o && row && row->over == o->token;
  if (o && w->kind == WRITE_AGAIN && !replaced) {
    g->conflicts++;
    names_tell(g, o->pid, term_build("ssp", "name_conflict", w->name, row ? row->pid : NPID_NONE));
  }
  if (o && (w->kind == WRITE_AGAIN || w->kind == WRITE_REMOVE)) names_own_remove(g, o);
  if (w->kind == WRITE_CLEAN)
    end_again(g, w, true, 0);
  else
    end(g, w, false, 0);
}

/* Decides on a registration whose key another node has written. */
static void contest(struct cluster_names *g, struct write *w, int64_t seen, const struct row *row,
                    bool owner_lives) {
  bool present = owner_lives || g->config.host->present(g->config.data, row->node, row->member);
  if (present && !w->force) {
    lost(g, w, row);
    return;
  }
  set_guard(w, present ? NULL : row->node, row->member);
  if (!present && !w->owner) { /* out of memory */
    lost(g, w, row);
    return;
  }
  w->over = present ? seen : 0;
  w->over_pid = row->pid;
  requeue(g, w, seen);
}

/* Has an earlier try of the write, which was not answered, made the key as this one would? */
static bool was_executed(const struct cluster_names *g, const struct write *w, const struct etcd_row *at,
                         const struct row *row) {
  return is_put(w) && at->modified != w->seen && row->pid == w->pid && row->member == g->member &&
         row->over == w->over && w->lease && at->lease == w->lease->id;
}

/* Decides on a write that was not executed, by what its key has: `at`, and the key of the guard: `owner`. */
static void decide(struct cluster_names *g, struct write *w, const struct etcd_row *at,
                   const struct etcd_row *owner, bool outdated) {
  struct row row;
  int64_t seen = at->modified;
  bool owner_lives = owner && owner->created == w->guard;
  bool known = seen && names_read_row(g, at, &row);
  bool mine = known && !strcmp(row.node, g->config.self);
  if (!seen) {
    w->over = 0;
    set_guard(w, NULL, 0);
  }
  if (is_put(w) && names_dead(w))
    clean(g, w, 0);
  else if (mine && !names_own(g, w->name) && was_executed(g, w, at, &row))
    written(g, w, seen, outdated);
  else if (seen == w->seen && !owner_lives)
    requeue(g, w, seen);
  else if (w->kind == WRITE_CLEAN && mine && row.pid == w->pid)
    requeue(g, w, seen);
  else if (w->kind == WRITE_REMOVE && !seen)
    succeeded(g, w, 0, false); /* by an earlier try, or with its lease */
  else if (w->kind == WRITE_CLEAN || w->kind == WRITE_REMOVE)
    lost(g, w, known ? &row : NULL);
  else if (!seen)
    requeue(g, w, 0);
  else if (mine && w->kind == WRITE_REGISTER && !w->force && names_own(g, w->name))
    lost(g, w, &row);
  else if (mine)
    requeue(g, w, seen);
  else if (known)
    contest(g, w, seen, &row, owner_lives);
  else if (w->force)
    requeue(g, w, seen);
  else
    lost(g, w, NULL);
}

/* --- transactions --------------------------------------------------------------------------------------- */

static bool is_outdated(const struct batch *b) {
  const struct cluster_names *g = b->names;
  return (g->member && g->member != b->member) || g->renewals != b->renewals;
}

/* The answer to a transaction that was not executed: the member key (if guarded), then of each write its key
 * and the key of its guard. */
static void decide_all(struct batch *b, const struct etcd_answer *answer) {
  struct cluster_names *g = b->names;
  size_t at = 0;
  bool gone = b->guarded && (!answer->n || answer->rows[at++].created != b->member);
  if (gone && g->member == b->member) g->member = 0;
  for (size_t i = 0; i < b->n; i++) {
    struct write *w = b->writes[i];
    size_t need = 1 + (w->guard != 0);
    if (at + need > answer->n) {
      requeue(g, w, w->seen);
      continue;
    }
    const struct etcd_row *row = &answer->rows[at];
    at += need;
    w->tried = false; /* had an earlier try been executed, the key would say so */
    if (w->kept) keep_name(g, w);
    decide(g, w, row, need > 1 ? row + 1 : NULL, is_outdated(b));
  }
}

static void set_batch(struct cluster_names *g, size_t n) {
  g->batch = n < BATCH_LEAST ? BATCH_LEAST : n < NAMES_BATCH ? n : NAMES_BATCH;
}

/* etcd has not executed a transaction of n writes, or has not said so. */
static void hold(struct cluster_names *g, size_t n) {
  bool late = names_now(g) - g->sent_ms >= LATE_MS;
  int64_t most = late && g->hold_ms > HOLD_MS ? g->hold_ms : HOLD_MS;
  g->held_ms = names_now(g) + most / 2 + (int64_t)(random_next(&g->random) % (uint64_t)(most / 2 + 1));
  if (!late) return;
  g->hold_ms = most * 2 < HOLD_MAX_MS ? most * 2 : HOLD_MAX_MS;
  set_batch(g, n / 2);
}

/* etcd has answered a transaction of n writes. */
static void let_go(struct cluster_names *g, size_t n) {
  size_t ms = (size_t)(names_now(g) - g->sent_ms);
  size_t next = ms < FAST_MS ? 2 * n : ms > SLOW_MS ? n * SLOW_MS / ms : n + BATCH_STEP;
  g->hold_ms = 0;
  if (ms > SLOW_MS || next > g->batch) set_batch(g, next);
}

static void fail_all(struct batch *b, const struct error *e) {
  struct cluster_names *g = b->names;
  bool final = e->code != ERR_ETCD && e->code != ERR_LOST && e->code != ERR_NO_NAME && e->code != ERR_BUSY;
  hold(g, b->n);
  for (size_t i = 0; i < b->n; i++) {
    struct write *w = b->writes[i];
    if (e->code == ERR_NO_NAME && w->lease) { /* maybe not its own one: the others get a new one as well */
      names_lease_lost(g, w->lease);
      names_lease_give(g, w->lease);
      w->lease = NULL;
    }
    if (w->kept) keep_name(g, w);
    if (names_dead(w) && is_put(w))
      clean(g, w, 0);
    else
      requeue(g, w, w->seen);
  }
  for (size_t i = 0; i < b->n && final; i++) {
    struct write *w = map_get(&g->writes, b->writes[i]->name);
    if (w == b->writes[i] && w->kind == WRITE_REGISTER) names_write_fail(g, w, e);
  }
}

static void on_written(void *data, const struct error *e, const struct etcd_answer *answer) {
  struct batch *b = data;
  struct cluster_names *g = b->names;
  if (!g->finishing) {
    for (size_t i = 0; i < b->n; i++) b->writes[i]->sent = false;
    if (e)
      fail_all(b, e);
    else if (!answer->succeeded)
      decide_all(b, answer);
    else
      for (size_t i = 0; i < b->n; i++) succeeded(g, b->writes[i], answer->revision, is_outdated(b));
    if (!e) g->answered_ms = names_now(g), let_go(g, b->n);
    if (!e && answer->revision > g->highest) g->highest = answer->revision;
    g->writing = false;
    if (!e) names_pump_writes(g);
  }
  free(b);
  names_request_done(g);
}

/* False: the write must wait, for the member key, until the node is sure of it, or for a lease. */
static bool ready(struct cluster_names *g, struct write *w) {
  if (!is_put(w)) return true;
  if (!g->member || is_barred(g)) return false;
  if (w->lease && w->lease->lost) {
    names_lease_give(g, w->lease);
    w->lease = NULL;
  }
  if (!w->lease) w->lease = names_lease_take(g);
  return w->lease != NULL;
}

static void fill(struct batch *b) {
  struct cluster_names *g = b->names;
  size_t cost = 0;
  int looks = NAMES_SLICE;
  for (struct ring *r = g->queued.next, *next; r != &g->queued && b->n < g->batch && looks--; r = next) {
    struct write *w = RING_ENTRY(r, struct write, queue);
    next = r->next;
    if (cost + 1 + (w->guard != 0) > g->batch) break;
    if (!ready(g, w)) { /* the next pump looks at others first */
      ring_out(&w->queue);
      ring_push(&g->queued, &w->queue);
      continue;
    }
    cost += 1 + (w->guard != 0);
    b->guarded |= is_put(w);
    b->writes[b->n++] = w;
    w->sent = w->tried = true;
    ring_out(&w->queue);
    ring_push(&g->sent, &w->queue);
  }
}

static void put_write(const struct cluster_names *g, struct etcd_txn *t, const struct write *w) {
  char key[NAMES_KEY_SIZE], owner[NAMES_KEY_SIZE];
  names_key(g, w->name, key);
  etcd_txn_if_modified(t, key, false, w->seen);
  etcd_txn_get(t, ETCD_ELSE, key);
  if (w->guard) {
    names_member_key(g, w->owner, owner);
    etcd_txn_if_created(t, owner, true, w->guard);
    etcd_txn_get(t, ETCD_ELSE, owner);
  }
  if (is_put(w)) {
    char *value = names_value(g, w->pid, w->over);
    etcd_txn_put(t, ETCD_THEN, key, value, w->lease->id);
    free(value);
  } else if (w->seen) {
    etcd_txn_delete(t, ETCD_THEN, key);
  }
}

void names_pump_writes(struct cluster_names *g) {
  if (g->writing || g->finishing || ring_empty(&g->queued) || names_now(g) < g->held_ms) return;
  struct batch *b = calloc(1, sizeof *b);
  struct etcd_txn *t = etcd_txn_new();
  if (!b || !t) {
    free(b);
    etcd_txn_free(t);
    return; /* the tick tries again */
  }
  if (names_now(g) - g->sent_ms > FIRST_MS && g->batch > BATCH_FIRST) g->batch = BATCH_FIRST;
  b->names = g;
  b->member = g->member;
  b->renewals = g->renewals;
  fill(b);
  if (!b->n) {
    free(b);
    etcd_txn_free(t);
    return;
  }
  if (b->guarded) {
    etcd_txn_if_created(t, g->self_key, false, g->member);
    etcd_txn_get(t, ETCD_ELSE, g->self_key);
  }
  for (size_t i = 0; i < b->n; i++) put_write(g, t, b->writes[i]);
  g->writing = true;
  g->sent_ms = names_now(g);
  g->requests++;
  etcd_txn_send(g->config.etcd, t, on_written, b);
}

/* Fails the registrations and removals that are late, with those who wait behind them.  While names are given
 * up, it does not count that etcd answers others. */
void names_fail_old(struct cluster_names *g, int64_t now, int *left) {
  for (struct ring *r; *left > 0 && (r = ring_first(&g->waited)); *left -= COST_FAIL) {
    struct write *w = RING_ENTRY(r, struct write, by_age);
    struct error e;
    int64_t answered_ms = is_barred(g) ? w->began_ms : g->answered_ms;
    if (!names_late(w->name, now, w->began_ms, answered_ms, &e)) return; /* nor are the younger ones */
    names_write_fail(g, w, &e);
  }
}

void names_tick_writes(struct cluster_names *g, int64_t now) {
  int left = NAMES_SLICE;
  names_fail_old(g, now, &left);
  if (left <= 0) names_start_slices(g);
  names_pump_writes(g);
}

void names_write_again(struct cluster_names *g, struct own *o) {
  if (g->finishing || o->holder->gone || map_get(&g->writes, o->name)) return; /* its outcome will tell */
  if (!names_write(g, WRITE_AGAIN, o->name, o->pid, o->token, NULL, NULL))
    log_line(g->config.log,
             "out of memory: the global name %s is not written again until it is compared with its key",
             o->name);
}

/* --- the end -------------------------------------------------------------------------------------------- */

void names_writes_finish(struct cluster_names *g) {
  struct error e;
  for (struct ring *r; (r = ring_first(&g->waited));) {
    struct write *w = RING_ENTRY(r, struct write, by_age);
    error_set(&e, ERR_LOST, "%s: this node is stopping", w->name);
    struct answer a = take_waiters(w, &e);
    names_answer(g, &a);
  }
}

void names_writes_end(struct cluster_names *g, int *left) {
  for (struct ring *lists[] = {&g->queued, &g->sent}, **l = lists; l < lists + 2; l++)
    for (struct ring *r; *left > 0 && (r = ring_first(*l)); *left -= COST_FREE)
      names_write_free(g, RING_ENTRY(r, struct write, queue));
}
