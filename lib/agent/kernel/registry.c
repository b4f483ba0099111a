/* Invariant: `claims` has the claims that this node publishes (those of `self`) and the claims that each peer
 * has sent over its link (those of the link). Each change of a claim of `self` is made together with its row
 * in `changes`. Each registration under way is in `pending` under its name, in one queue according to its
 * stage, and in the list of its process; it ends once, in end_pending.
 *
 * The orderings that the registry relies on:
 *
 *  - Lines of one link, in one direction, arrive in the order in which they were written, and none is missing
 *    while the link is up.  A link begins with the snapshot (registry_link_begin); from then on every flush
 *    goes to it, also while further parts of the snapshot are sent.  So a peer that has the last part knows,
 *    after each line, what this node said when it wrote the line.  A claim in a part may be sent again as a
 * change in the next flush; that does no harm, because the flush has all changes since the last flush, in
 * order, and leads to the same state.
 *  - A heartbeat with a version is such a line, and registry_version flushes first: the version and the names
 *    that the peer has can be compared exactly, at any time.
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
#include "agent/kernel/registry.h"

#include "agent/kernel/claims.h"
#include "base/holds.h"
#include "base/metrics.h"
#include "base/ring.h"
#include "core/procname.h"

#include <stdlib.h>
#include <string.h>

enum {
  AGAIN_MS = 20, /* time until the arbiter is asked again for a name that it has leased to another home */
  LOG_AGAIN_MS = 60000 /* least time between two log lines that say that a peer's names differ */
};
/* A claim's token is below TOKEN_MAX.  New tokens follow those that are below TOKEN_SEEN_MAX, so that a peer
 * that names a token near TOKEN_MAX does not leave this node without larger ones. */
#define TOKEN_SEEN_MAX (INT64_C(1) << 61)
#define TOKEN_MAX      (INT64_C(1) << 62)

/* Values that a grant has in place of a token. GRANT_TAKEN: the name is taken. GRANT_AGAIN: the name is
 * leased to another home, and the asker is to ask again. */
enum { GRANT_TAKEN = 0, GRANT_AGAIN = -1 };

/* The flags of a cast. CAST_WANT_ALL: the receiver is to send all its names. CAST_FIRST, CAST_LAST: the
 * changes are the first, or the last, part of all names of the sender. */
enum { CAST_WANT_ALL = 1, CAST_FIRST = 2, CAST_LAST = 4 };

struct rows { /* encoded rows, to be sent by the next flush */
  struct term_writer w;
  uint32_t count;
};

struct round { /* the changes of one flush, maybe none, on their way to the peers */
  struct ring queue;
  uint64_t number;
  int64_t since_ms;
  int open; /* how many peers have not acknowledged the changes */
  struct ring pending;
};

struct expect { /* a round that a peer has not acknowledged */
  struct expect *next;
  struct round *round;
};

/* What a link is being sent, a part in each turn of the loop: the snapshot, or all names once more, because
 * the peer has found a difference. */
enum sending { SENDS_NOTHING, SENDS_SNAPSHOT, SENDS_ALL };

struct link {
  struct ring all;
  struct home home;
  uint64_t rank;
  bool synced, suspected;
  bool slow; /* the peer has not answered in time, and has sent nothing since */
  /* The link was lost: its claims are hidden, and are removed in slices with its leases.  It is freed after
   * the last one, but not while the links are visited (`walking`). */
  bool gone;
  enum sending sending;
  const struct claim *cursor; /* the next own claim that it will be sent; NULL: only the end is missing */
  /* `wants_all`: the peer has asked for all names of this node; `want_all`: the next flush asks for all names
   * of the peer. */
  bool wants_all, want_all;
  uint32_t mark; /* how many times the peer has begun to send all its names */
  /* The peer has sent all its names: from this claim on, those that were not among them are still to be
   * removed; NULL: they are. */
  struct claim *sweep;
  int64_t logged_ms; /* when a difference was last logged; 0: never */
  uint64_t have;     /* number of the peer's round that the next flush acknowledges; 0: none */
  struct rows requests, grants;
  struct expect *expects, **expects_end;
  struct ring asked;  /* registrations that wait for a grant of the peer */
  struct ring leases; /* leases that were granted to the peer */
};

/* A name that this node, as the arbiter, has granted to a home that has not yet published it. */
struct lease {
  struct ring queue, of_link;
  struct link *link;
  uint64_t id; /* the number of the request */
  int64_t since_ms;
  char name[];
};

struct waiter {
  struct waiter *next;
  registry_done *done;
  void *data;
  npid pid;
  bool force;
};

enum stage { STAGE_NEW, STAGE_ASKING, STAGE_AGAIN, STAGE_PUBLISHING, STAGE_ENDED };

struct pending { /* a registration under way, or, with the pid NPID_NONE, the removal of a name */
  enum stage stage;
  struct ring queue; /* in `asking`, `again`, the pending of a round, or `ended` */
  struct ring at_arbiter, of_process;
  npid pid;
  bool force, probed; /* probed: it has had all peers asked whether they answer */
  uint64_t id, token;
  struct link *arbiter;
  int64_t began_ms, since_ms;
  /* `waiters`: who is told the outcome; `behind`: registrations that begin when this one has ended. */
  struct waiter *waiters, *behind;
  int code; /* the outcome: 0, or an error and its text (NULL: the sentence of the code) */
  const char *what;
  bool yes;
  char name[];
};

struct holder { /* a watched process */
  npid pid;
  struct ring claims, pending;
};

struct registry {
  struct registry_config config;
  const struct registry_host *host;
  void *data;

  struct claims claims;
  struct home self;
  uint64_t rank;
  uint64_t highest; /* the largest token seen */
  struct map holders;

  struct ring links;
  struct map by_node;
  bool walking; /* the links are being visited */
  int slicing;  /* how many links are being sent something in parts */
  int dropping; /* how many links are gone and not yet freed */
  int sweeping; /* how many have a `sweep` */

  struct rows changes;
  uint64_t rounds; /* begun so far */
  struct round *open_round;
  struct ring waiting; /* rounds, oldest first */

  struct map pending, asked; /* pending: by name; asked: by the number of the request */
  size_t pending_count;
  uint64_t last_id;
  struct ring asking, again, ended;

  struct map leases;
  struct ring leased;

  uint64_t registered, conflicts, resyncs;
  bool dirty, finishing;
  uv_prepare_t flush;
  uv_timer_t tick;
  uv_idle_t slice;
  int handles;
};

static int64_t now_of(const struct registry *g) {
  return g->host->now_ms(g->data);
}

/* Schedules the flush, which runs before the loop waits next. */
static void mark_dirty(struct registry *g);
/* Starts the timer of the tick. */
static void start_tick(struct registry *g);
/* Starts sending slices, one in each turn of the loop. */
static void start_slices(struct registry *g);

/* --- tokens and ranks ----------------------------------------------------------------------------------- */

static void saw_token(struct registry *g, int64_t token) {
  if (token > 0 && token < TOKEN_SEEN_MAX && (uint64_t)token > g->highest) g->highest = (uint64_t)token;
}

/* Returns a new token: the microseconds since 1970, or one more than the largest token seen, whichever is
 * larger. */
static int64_t new_token(struct registry *g) {
  int64_t now = g->host->wall_us(g->data);
  g->highest++;
  saw_token(g, now);
  return (int64_t)g->highest;
}

static uint64_t hash_text(const char *text) {
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

static bool answers(const struct link *l) {
  return !l->gone && !l->suspected && !l->slow;
}

/* Returns the link to the arbiter of a name; NULL when this node is the arbiter. */
static struct link *elect(const struct registry *g, const char *name) {
  uint64_t hash = hash_text(name), best = rank_of(hash, g->rank);
  struct link *arbiter = NULL;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (!l->synced || !answers(l)) continue;
    uint64_t rank = rank_of(hash, l->rank);
    if (rank <= best) continue;
    best = rank;
    arbiter = l;
  }
  return arbiter;
}

/* --- rows ----------------------------------------------------------------------------------------------- */

static void rows_finish(struct rows *r) {
  term_writer_finish(&r->w);
  r->count = 0;
}

static void rows_clear(struct rows *r) {
  if (r->w.cap > 64 << 10) term_writer_finish(&r->w);
  term_writer_clear(&r->w);
  r->count = 0;
}

static void put_rows(struct term_writer *w, const struct rows *r) {
  size_t at = term_open(w, TERM_LIST);
  if (r && r->w.failed) w->failed = r->w.failed;
  if (r) term_put_raw(w, r->w.data, r->w.len);
  term_set_count(w, at, r ? r->count : 0);
}

/* Writes [name, number, token], or [name, number, token, age, over] for a claim that replaced another by
 * force. */
static void row_of_claim(struct rows *rows, const struct claim *c) {
  bool plain = c->terms.age == c->terms.token && !c->terms.over;
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_text(&rows->w, c->name);
  term_put_int(&rows->w, (int64_t)npid_number(c->terms.pid));
  term_put_int(&rows->w, (int64_t)c->terms.token);
  if (!plain) {
    term_put_int(&rows->w, (int64_t)c->terms.age);
    term_put_int(&rows->w, (int64_t)c->terms.over);
  }
  term_set_count(&rows->w, at, plain ? 3 : 5);
  rows->count++;
}

/* Writes [name, token]: the registration with that token has been removed. */
static void row_of_drop(struct rows *rows, const struct claim *c) {
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_text(&rows->w, c->name);
  term_put_int(&rows->w, (int64_t)c->terms.token);
  term_set_count(&rows->w, at, 2);
  rows->count++;
}

/* Writes a request, [id, name, force], or its release, [id, name]. */
static void row_of_request(struct rows *rows, const struct pending *p, bool release) {
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_int(&rows->w, (int64_t)p->id);
  term_put_text(&rows->w, p->name);
  if (!release) term_put_bool(&rows->w, p->force);
  term_set_count(&rows->w, at, release ? 2 : 3);
  rows->count++;
}

/* Writes [id, token], with GRANT_… in place of the token for a refusal. */
static void row_of_grant(struct rows *rows, int64_t id, int64_t token) {
  size_t at = term_open(&rows->w, TERM_LIST);
  term_put_int(&rows->w, id);
  term_put_int(&rows->w, token);
  term_set_count(&rows->w, at, 2);
  rows->count++;
}

/* Reads the next value, a process name, into out, NUL-terminated; false when it is not a process name. */
static bool get_name(struct term_reader *r, char out[256]) {
  const char *s;
  size_t n;
  if (!term_get_str(r, &s, &n) || n > 255 || memchr(s, 0, n)) return false;
  memcpy(out, s, n);
  out[n] = 0;
  return !procname_check(out, NULL);
}

/* --- watched processes ---------------------------------------------------------------------------------- */

/* Returns the holder of a process of this node; the first call makes the holder and has the process watched.
 * NULL: out of memory. */
static struct holder *holder_of(struct registry *g, npid pid) {
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

/* --- the end of a registration -------------------------------------------------------------------------- */

static void release(struct registry *g, struct pending *p) {
  if (p->arbiter && !p->arbiter->gone) {
    row_of_request(&p->arbiter->requests, p, true);
    mark_dirty(g);
  }
}

/* Forgets the request to the arbiter, because the answer has arrived or the registration no longer waits for
 * it. give_back: tells the arbiter to end the lease. */
static void stop_asking(struct registry *g, struct pending *p, bool give_back) {
  if (!p->id) return;
  if (give_back) release(g, p);
  map_remove_id(&g->asked, p->id);
  ring_out(&p->at_arbiter);
  p->arbiter = NULL;
  p->id = 0;
}

/* Ends a registration with an outcome.  Its callbacks run in the next flush. */
static void end_pending(struct registry *g, struct pending *p, int code, const char *what, bool yes) {
  if (p->stage == STAGE_ENDED) return;
  stop_asking(g, p, true);
  if (p->pid != NPID_NONE) map_remove(&g->pending, p->name);
  ring_out(&p->of_process);
  ring_out(&p->queue);
  p->stage = STAGE_ENDED;
  p->code = code;
  p->what = what;
  p->yes = yes;
  ring_push(&g->ended, &p->queue);
  mark_dirty(g);
}

static void tell_waiters(struct registry *g, const struct pending *p) {
  struct error e;
  if (p->code) error_set(&e, p->code, "%s: %s", p->name, p->what ? p->what : err_sentence(p->code));
  for (struct waiter *w = p->waiters, *next; w; w = next) {
    next = w->next;
    g->pending_count--;
    w->done(w->data, p->code ? &e : NULL, p->yes, p->token);
    free(w);
  }
}

static void begin_behind(struct registry *g, const struct pending *p) {
  for (struct waiter *w = p->behind, *next; w; w = next) {
    next = w->next;
    g->pending_count--;
    registry_register(g, p->name, w->pid, w->force, w->done, w->data);
    free(w);
  }
}

/* Makes a success a failure when the name was withdrawn between the end of the registration and its callback.
 */
static void confirm(const struct registry *g, struct pending *p) {
  if (!p->yes || p->pid == NPID_NONE) return;
  const struct claim *own = claims_of(&g->claims, &g->self, p->name);
  p->yes = own && own->terms.token == p->token;
}

static bool deliver_ended(struct registry *g) {
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

static void round_check(struct registry *g, struct round *r) {
  if (r->open) return;
  for (struct ring *at; (at = ring_first(&r->pending));)
    end_pending(g, RING_ENTRY(at, struct pending, queue), 0, NULL, true);
  ring_out(&r->queue);
  free(r);
}

/* Ends the wait for a peer's acknowledgement of the rounds up to that number. */
static void drop_expects(struct registry *g, struct link *l, uint64_t number) {
  for (struct expect *e; (e = l->expects) && e->round->number <= number;) {
    struct round *round = e->round;
    l->expects = e->next;
    if (!l->expects) l->expects_end = &l->expects;
    free(e);
    round->open--;
    round_check(g, round);
  }
}

/* Has a round wait for the acknowledgement of a peer.  Without memory the round does not wait for it. */
static void add_expect(struct link *l, struct round *round) {
  struct expect *e = malloc(sizeof *e);
  if (!e) return;
  *e = (struct expect){NULL, round};
  *l->expects_end = e;
  l->expects_end = &e->next;
  round->open++;
}

/* The round of the next flush; NULL: out of memory. */
static struct round *next_round(struct registry *g) {
  struct round *r = g->open_round;
  mark_dirty(g);
  if (r || !(r = malloc(sizeof *r))) return r;
  *r = (struct round){.open = 0};
  ring_init(&r->queue);
  ring_init(&r->pending);
  return g->open_round = r;
}

/* Has a registration wait until the peers have acknowledged the changes of the next flush. */
static void await_round(struct registry *g, struct pending *p) {
  struct round *r = next_round(g);
  p->stage = STAGE_PUBLISHING;
  ring_out(&p->queue);
  if (r)
    ring_push(&r->pending, &p->queue);
  else /* the change is sent, but the registration does not wait for the peers */
    end_pending(g, p, 0, NULL, true);
}

/* --- this node's own claims ----------------------------------------------------------------------------- */

static void set_sending(struct registry *g, struct link *l, enum sending what, const struct claim *c) {
  g->slicing += (what != SENDS_NOTHING) - (l->sending != SENDS_NOTHING);
  l->sending = what;
  l->cursor = c;
}

/* Moves the cursors that stand at a claim that is about to be removed. */
static void pass_cursors(struct registry *g, const struct claim *c) {
  if (!g->slicing) return;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (l->cursor == c) l->cursor = c->next;
  }
}

static void withdraw(struct registry *g, struct claim *c) {
  pass_cursors(g, c);
  row_of_drop(&g->changes, c);
  claims_remove(&g->claims, c);
  mark_dirty(g);
}

/* Withdraws an own claim, because the claim of a peer takes precedence. The process of the withdrawn claim is
 * sent "name_conflict", unless the winner has replaced that registration by force. */
static void yield(struct registry *g, struct claim *own, const struct claim *winner) {
  bool replaced = winner->terms.over == own->terms.token;
  struct pending *p = map_get(&g->pending, own->name);
  if (!replaced) {
    struct term *t = term_build("ssp", "name_conflict", own->name, winner->terms.pid);
    g->conflicts++;
    g->host->tell(g->data, own->terms.pid, t);
    term_unref(t);
  }
  if (p && p->stage == STAGE_PUBLISHING) end_pending(g, p, 0, NULL, false);
  withdraw(g, own);
}

static void publish(struct registry *g, struct pending *p, int64_t token) {
  struct claim *own = claims_of(&g->claims, &g->self, p->name), *best = claims_best(&g->claims, p->name);
  struct holder *holder = holder_of(g, p->pid);
  struct claim_terms terms = {.pid = p->pid, .token = (uint64_t)token, .age = (uint64_t)token};
  if (best) {
    terms.age = best->terms.age;
    terms.over = best->terms.token;
  }
  struct claim *c = holder ? claims_put(&g->claims, &g->self, p->name, &terms) : NULL;
  if (!c) {
    end_pending(g, p, ERR_NOMEM, NULL, false);
    return;
  }
  if (own) ring_out(&c->twins);
  ring_push(&holder->claims, &c->twins);
  row_of_claim(&g->changes, c);
  p->token = terms.token;
  await_round(g, p);
}

/* --- arbitration ---------------------------------------------------------------------------------------- */

static void lease_free(struct registry *g, struct lease *l) {
  map_remove(&g->leases, l->name);
  ring_out(&l->queue);
  ring_out(&l->of_link);
  free(l);
}

static int lease_add(struct registry *g, struct link *to, uint64_t id, const char *name) {
  size_t size = strlen(name) + 1;
  struct lease *l = malloc(sizeof *l + size);
  if (!l) return ERR_NOMEM;
  *l = (struct lease){.link = to, .id = id, .since_ms = now_of(g)};
  memcpy(l->name, name, size);
  if (map_put(&g->leases, name, l)) {
    free(l);
    return ERR_NOMEM;
  }
  ring_init(&l->queue);
  ring_init(&l->of_link);
  ring_push(&g->leased, &l->queue);
  ring_push(&to->leases, &l->of_link);
  start_tick(g);
  return 0;
}

/* True when a node other than `home` claims the name. */
static bool held_elsewhere(const struct registry *g, const struct home *home, const char *name) {
  for (const struct claim *c = claims_best(&g->claims, name); c; c = c->rival)
    if (c->home != home && !c->home->gone) return true;
  return false;
}

/* True when this node is asking another arbiter for the name and has priority over the node `other`. Of two
 * nodes that ask each other, the node whose name sorts first has priority. */
static bool asks_itself(const struct registry *g, const char *name, const struct link *other) {
  const struct pending *p = map_get(&g->pending, name);
  return p && p->stage == STAGE_ASKING && strcmp(g->self.node, other->home.node) < 0;
}

static bool is_full(const struct registry *g, enum limit i, size_t count) {
  return count >= (size_t)limit_max(g->config.limits, i);
}

/* Decides, as the arbiter of a name, on the request of a peer (NULL: of this node, which publishes at once
 * and needs no lease).  Returns the token, or GRANT_…. */
static int64_t arbitrate(struct registry *g, struct link *asker, uint64_t id, const char *name, bool force) {
  struct lease *lease = map_get(&g->leases, name);
  if (lease && lease->link->gone) {
    lease_free(g, lease);
    lease = NULL;
  }
  if (lease && lease->link != asker) return force ? GRANT_AGAIN : GRANT_TAKEN;
  if (!force && held_elsewhere(g, asker ? &asker->home : &g->self, name)) return GRANT_TAKEN;
  if (asker && asks_itself(g, name, asker)) return GRANT_AGAIN;
  if (lease) lease_free(g, lease);
  if (asker && (is_full(g, LIMIT_REGISTRATIONS, g->leases.len) || lease_add(g, asker, id, name)))
    return GRANT_AGAIN;
  return new_token(g);
}

static void ask(struct registry *g, struct pending *p);

static void on_grant(struct registry *g, struct pending *p, int64_t token) {
  const struct claim *best = claims_best(&g->claims, p->name);
  bool late = now_of(g) - p->since_ms > REGISTRY_LEASE_MS / 2;
  bool low = best && token <= (int64_t)best->terms.token; /* the arbiter did not know the claim `best` */
  bool taken = token == GRANT_TAKEN || (!p->force && best);
  bool granted = token > 0 && token < TOKEN_MAX && !taken && !late && !low;
  saw_token(g, token);
  stop_asking(g, p, token > 0 && !granted);
  if (granted) {
    publish(g, p, token);
  } else if (taken) {
    end_pending(g, p, 0, NULL, false);
  } else {
    p->stage = STAGE_AGAIN;
    p->since_ms = now_of(g);
    ring_out(&p->queue);
    ring_push(&g->again, &p->queue);
    start_tick(g);
  }
}

/* Asks the arbiter of the name: for the first time, after GRANT_AGAIN, or because the last arbiter does not
 * answer. */
static void ask(struct registry *g, struct pending *p) {
  stop_asking(g, p, true);
  ring_out(&p->queue);
  p->since_ms = now_of(g);
  p->stage = STAGE_NEW;
  if (p->since_ms - p->began_ms >= REGISTRY_TIMEOUT_MS) {
    end_pending(g, p, ERR_TIMEOUT, NULL, false);
    return;
  }
  struct link *arbiter = elect(g, p->name);
  if (!arbiter) {
    on_grant(g, p, arbitrate(g, NULL, 0, p->name, p->force));
    return;
  }
  p->id = ++g->last_id;
  if (map_put_id(&g->asked, p->id, p)) {
    p->id = 0;
    end_pending(g, p, ERR_NOMEM, NULL, false);
    return;
  }
  p->stage = STAGE_ASKING;
  p->arbiter = arbiter;
  ring_push(&g->asking, &p->queue);
  ring_push(&arbiter->asked, &p->at_arbiter);
  row_of_request(&arbiter->requests, p, false);
  mark_dirty(g);
  start_tick(g);
}

static void ask_others(struct registry *g, struct link *l) {
  for (struct ring *r; (r = ring_first(&l->asked));) ask(g, RING_ENTRY(r, struct pending, at_arbiter));
}

/* Stops waiting for a peer that does not answer, is suspected or is lost: registrations ask the next node in
 * rank, and rounds end without the peer's acknowledgement. */
static void pass_over(struct registry *g, struct link *l) {
  ask_others(g, l);
  drop_expects(g, l, UINT64_MAX);
}

/* --- registering ---------------------------------------------------------------------------------------- */

static void done_now(registry_done *done, void *data, int code, const char *name, const char *what) {
  struct error e;
  error_set(&e, code, "%s: %s", name, what ? what : err_sentence(code));
  done(data, &e, false, 0);
}

struct forward { /* a call to the registry of another node */
  registry_done *done;
  void *data;
  const char *node;
};

static void on_forwarded(void *data, const struct error *e, struct term_reader values) {
  struct forward *f = data;
  struct error lost;
  int64_t token = 0;
  bool yes = !e && term_next(&values).tag == TERM_TRUE;
  if (!yes || !term_get_int(&values, &token)) token = 0;
  if (e && !strcmp(error_text(e), "noconnection")) {
    error_set(&lost, ERR_NOT_CONNECTED, "%s: the node of the process is not connected", f->node);
    e = &lost;
  }
  f->done(f->data, e, yes, (uint64_t)token);
  free(f);
}

/* Calls the registry of the node that owns the process, or the process that has the name. */
static void forward(struct registry *g, uint32_t node, const char *name, struct term *args,
                    registry_done *done, void *data) {
  struct forward *f = args ? malloc(sizeof *f) : NULL;
  if (!f) {
    term_unref(args);
    done_now(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  *f = (struct forward){done, data, nodetab_name(g->config.nodes, node)};
  g->host->call(g->data, node, args, on_forwarded, f);
}

static struct waiter *waiter_new(npid pid, bool force, registry_done *done, void *data) {
  struct waiter *w = malloc(sizeof *w);
  if (w) *w = (struct waiter){NULL, done, data, pid, force};
  return w;
}

static struct pending *pending_new(struct registry *g, const char *name, npid pid, bool force,
                                   registry_done *done, void *data) {
  size_t size = strlen(name) + 1;
  struct waiter *w = waiter_new(pid, force, done, data);
  struct pending *p = w ? malloc(sizeof *p + size) : NULL;
  if (!p) {
    free(w);
    return NULL;
  }
  *p = (struct pending){.pid = pid, .force = force, .waiters = w, .began_ms = now_of(g)};
  ring_init(&p->queue);
  ring_init(&p->at_arbiter);
  ring_init(&p->of_process);
  memcpy(p->name, name, size);
  g->pending_count++;
  return p;
}

static void begin(struct registry *g, const char *name, npid pid, bool force, registry_done *done,
                  void *data) {
  struct holder *holder = holder_of(g, pid);
  struct pending *p = holder ? pending_new(g, name, pid, force, done, data) : NULL;
  if (p && map_put(&g->pending, name, p)) {
    g->pending_count--;
    free(p->waiters);
    free(p);
    p = NULL;
  }
  if (!p) {
    done_now(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  ring_push(&holder->pending, &p->of_process);
  ask(g, p);
}

/* Handles a request for a name while a registration of that name is under way. A request for the same process
 * gets the outcome of that registration. A request for another process fails because the name is taken, or,
 * with force, begins when the present registration has ended. */
static void join(struct registry *g, struct pending *p, npid pid, bool force, registry_done *done,
                 void *data) {
  bool same = p->pid == pid;
  if (!same && !force) {
    done(data, NULL, false, 0);
    return;
  }
  struct waiter *w = waiter_new(pid, force, done, data);
  if (!w) {
    done_now(done, data, ERR_NOMEM, p->name, NULL);
    return;
  }
  struct waiter **at = same && p->force >= force ? &p->waiters : &p->behind;
  g->pending_count++;
  while (*at) at = &(*at)->next;
  *at = w;
}

/* Checks the bounds before a registration begins. On failure *what is the text of the error. */
static int check_room(const struct registry *g, const struct claim *own, char text[LIMIT_TEXT_SIZE],
                      const char **what) {
  if (g->finishing) return *what = "this node is stopping", ERR_LOST;
  bool busy = is_full(g, LIMIT_REGISTRATIONS, g->pending_count);
  if (!busy && (own || !is_full(g, LIMIT_GLOBAL_NAMES, g->self.count))) return 0;
  enum limit i = busy ? LIMIT_REGISTRATIONS : LIMIT_GLOBAL_NAMES;
  limit_refuse(g->config.limits, i);
  *what = limit_text(g->config.limits, i, text);
  return ERR_BUSY;
}

void registry_register(struct registry *g, const char *name, npid pid, bool force, registry_done *done,
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
    done_now(done, data, ERR_NO_PROCESS, name, NULL);
  else if (!p && own && own->terms.pid == pid)
    done(data, NULL, true, own->terms.token);
  else if (!p && !force && claims_best(&g->claims, name))
    done(data, NULL, false, 0);
  else if ((code = check_room(g, own, text, &what)))
    done_now(done, data, code, name, what);
  else if (p)
    join(g, p, pid, force, done, data);
  else
    begin(g, name, pid, force, done, data);
}

void registry_unregister_own(struct registry *g, const char *name, uint64_t token, registry_done *done,
                             void *data) {
  struct claim *own = claims_of(&g->claims, &g->self, name);
  if (!own || own->terms.token != token) {
    done(data, NULL, false, 0);
    return;
  }
  struct pending *p = pending_new(g, name, NPID_NONE, false, done, data);
  if (!p) {
    done_now(done, data, ERR_NOMEM, name, NULL);
    return;
  }
  p->token = token;
  withdraw(g, own);
  await_round(g, p);
}

void registry_unregister(struct registry *g, const char *name, registry_done *done, void *data) {
  const struct claim *c = claims_best(&g->claims, name);
  if (!c)
    done(data, NULL, false, 0);
  else if (c->home == &g->self)
    registry_unregister_own(g, name, c->terms.token, done, data);
  else
    forward(g, c->home->incarnation, name,
            term_build("ssi", "name_unregister", name, (int64_t)c->terms.token), done, data);
}

void registry_down(struct registry *g, npid pid) {
  struct holder *h = map_remove_id(&g->holders, pid);
  if (!h) return;
  for (struct ring *r; (r = ring_first(&h->pending));)
    end_pending(g, RING_ENTRY(r, struct pending, of_process), ERR_NO_PROCESS, NULL, false);
  for (struct ring *r; (r = ring_first(&h->claims));) withdraw(g, RING_ENTRY(r, struct claim, twins));
  free(h);
}

/* --- what a peer says of its names ---------------------------------------------------------------------- */

static void set_sweep(struct registry *g, struct link *l, struct claim *c) {
  g->sweeping += (c != NULL) - (l->sweep != NULL);
  l->sweep = c;
}

static void on_claim(struct registry *g, struct link *l, const char *name, const struct claim_terms *terms) {
  struct lease *lease = map_get(&g->leases, name);
  if (lease && lease->link == l) lease_free(g, lease);
  saw_token(g, (int64_t)terms->token);
  struct claim *c = claims_of(&g->claims, &l->home, name);
  if (c || l->home.count < (size_t)limit_most(LIMIT_GLOBAL_NAMES))
    c = claims_put(&g->claims, &l->home, name, terms);
  if (!c) return; /* out of memory; the next heartbeat shows that the versions differ */
  c->mark = l->mark;
  struct claim *own = claims_of(&g->claims, &g->self, name);
  if (own && claim_precedes(c, own)) yield(g, own, c);
}

static void on_drop(struct registry *g, struct link *l, const char *name, uint64_t token) {
  struct claim *c = claims_of(&g->claims, &l->home, name);
  if (!c || c->terms.token != token) return;
  if (l->sweep == c) set_sweep(g, l, c->next);
  claims_remove(&g->claims, c);
}

static bool good_token(int64_t token) {
  return token > 0 && token < TOKEN_MAX;
}

static bool good_claim(int64_t number, int64_t token, int64_t age, int64_t over) {
  return number > 0 && number <= (int64_t)NPID_NUMBER_MAX && good_token(token) && good_token(age) &&
         age <= token && over >= 0 && over < token;
}

/* Applies a row of row_of_claim or row_of_drop, and moves r behind the row. */
static void hear_change(struct registry *g, struct link *l, struct term_reader *r) {
  struct term_reader row = *r;
  struct term_value head = term_next(&row);
  char name[256];
  int64_t v[4] = {0};
  term_skip(r);
  if (head.tag != TERM_LIST || !get_name(&row, name)) return;
  for (uint32_t i = 1; i < head.count && i <= 4; i++)
    if (!term_get_int(&row, &v[i - 1])) return;
  if (head.count == 2) on_drop(g, l, name, (uint64_t)v[0]);
  if (head.count == 3) v[2] = v[1];
  if (head.count >= 3 && good_claim(v[0], v[1], v[2], v[3]))
    on_claim(g, l, name,
             &(struct claim_terms){.pid = npid_make(l->home.incarnation, (uint64_t)v[0]),
                                   .token = (uint64_t)v[1],
                                   .age = (uint64_t)v[2],
                                   .over = (uint64_t)v[3]});
}

static void hear_request(struct registry *g, struct link *l, struct term_reader *r) {
  struct term_reader row = *r;
  struct term_value head = term_next(&row);
  char name[256];
  int64_t id;
  term_skip(r);
  if (head.tag != TERM_LIST || head.count < 2 || !term_get_int(&row, &id) || !get_name(&row, name)) return;
  if (head.count > 2) {
    bool force = term_next(&row).tag == TERM_TRUE;
    row_of_grant(&l->grants, id, arbitrate(g, l, (uint64_t)id, name, force));
    mark_dirty(g);
    return;
  }
  struct lease *lease = map_get(&g->leases, name);
  if (lease && lease->link == l && lease->id == (uint64_t)id) lease_free(g, lease);
}

static void hear_grant(struct registry *g, struct link *l, struct term_reader *r) {
  struct term_reader row = *r;
  struct term_value head = term_next(&row);
  int64_t id, token;
  term_skip(r);
  if (head.tag != TERM_LIST || !term_get_int(&row, &id) || !term_get_int(&row, &token)) return;
  struct pending *p = map_get_id(&g->asked, (uint64_t)id);
  if (p && p->arbiter == l) on_grant(g, p, token);
}

/* Reads a list of rows. False when the next value is not a list. */
static bool hear_rows(struct registry *g, struct link *l, struct term_reader *r,
                      void (*hear)(struct registry *g, struct link *l, struct term_reader *r)) {
  struct term_value list = term_next(r);
  if (list.tag != TERM_LIST) return false;
  for (uint32_t i = 0; i < list.count; i++) hear(g, l, r);
  return true;
}

/* Looks at *left claims of the sweep, and removes those that were not among all names that the peer has sent.
 */
static void sweep_some(struct registry *g, struct link *l, uint32_t *left) {
  struct claim *c = l->sweep;
  for (struct claim *next; c && *left; c = next, (*left)--) {
    next = c->next;
    if (c->mark != l->mark) claims_remove(&g->claims, c);
  }
  set_sweep(g, l, c);
}

static void sweep_slice(struct registry *g) {
  uint32_t left = g->config.slice;
  for (struct ring *r = g->links.next; g->sweeping && r != &g->links; r = r->next)
    sweep_some(g, RING_ENTRY(r, struct link, all), &left);
  if (g->sweeping) start_slices(g);
}

void registry_heard(struct registry *g, uint32_t node, struct term_reader r) {
  struct link *l = map_get_id(&g->by_node, node);
  int64_t highest, number, have, flags;
  if (!l || !term_get_int(&r, &highest) || !term_get_int(&r, &number) || !term_get_int(&r, &have) ||
      !term_get_int(&r, &flags))
    return;
  l->slow = false;
  saw_token(g, highest);
  if (flags & CAST_FIRST) {
    l->mark++;
    set_sweep(g, l, NULL);
  }
  bool whole = hear_rows(g, l, &r, hear_change);
  if (whole && flags & CAST_LAST) {
    set_sweep(g, l, l->home.claims);
    sweep_slice(g);
  }
  if (number > 0) l->have = (uint64_t)number;
  if (flags & CAST_WANT_ALL) l->wants_all = true;
  if (number > 0 || flags & CAST_WANT_ALL) mark_dirty(g);
  drop_expects(g, l, (uint64_t)have);
  if (whole && hear_rows(g, l, &r, hear_request)) hear_rows(g, l, &r, hear_grant);
}

/* --- versions ------------------------------------------------------------------------------------------- */

json_t *registry_version(struct registry *g) {
  while (registry_flush(g)) continue;
  return json_pack("[I, I, I]", (json_int_t)g->self.count, (json_int_t)g->self.sum, (json_int_t)g->highest);
}

static void log_difference(struct registry *g, struct link *l, json_int_t count) {
  int64_t now = now_of(g);
  if (l->logged_ms && now - l->logged_ms < LOG_AGAIN_MS) return;
  l->logged_ms = now ? now : 1;
  log_line(g->config.log, "%s: its global names (%lld) differ from those known here (%zu): asking for all",
           l->home.node, (long long)count, l->home.count);
}

void registry_version_heard(struct registry *g, uint32_t node, const json_t *version) {
  struct link *l = map_get_id(&g->by_node, node);
  json_int_t count, sum, highest;
  json_error_t e;
  if (!l || !l->synced || json_unpack_ex((json_t *)version, &e, 0, "[I, I, I]", &count, &sum, &highest))
    return;
  l->slow = false;
  saw_token(g, highest);
  if (l->sweep || ((size_t)count == l->home.count && (uint64_t)sum == l->home.sum)) return;
  log_difference(g, l, count);
  g->resyncs++;
  l->want_all = true;
  mark_dirty(g);
}

/* --- links ---------------------------------------------------------------------------------------------- */

static json_t *json_of_claim(const struct claim *c) {
  return json_pack("[s, I, I, I, I]", c->name, (json_int_t)npid_number(c->terms.pid),
                   (json_int_t)c->terms.token, (json_int_t)c->terms.age, (json_int_t)c->terms.over);
}

/* {"highest", "claims": [row…], "more"}: the next part of the snapshot for a link. Claims that this node
 * makes later are inserted before the cursor, so the snapshot does not have them; they are sent as
 * changes. */
static json_t *next_part(struct registry *g, struct link *l) {
  json_t *rows = json_array();
  const struct claim *c = l->cursor;
  for (uint32_t n = 0; rows && c && n < g->config.slice; n++, c = c->next)
    if (json_array_append_new(rows, json_of_claim(c))) {
      json_decref(rows);
      rows = NULL;
    }
  set_sending(g, l, rows && c ? SENDS_SNAPSHOT : SENDS_NOTHING, c);
  return rows ? json_pack("{s:I, s:o, s:b}", "highest", (json_int_t)g->highest, "claims", rows, "more",
                          c != NULL)
              : NULL;
}

static struct link *link_new(struct registry *g, uint32_t node) {
  struct link *l = calloc(1, sizeof *l);
  if (!l || map_put_id(&g->by_node, node, l)) {
    free(l);
    return NULL;
  }
  l->home.incarnation = node;
  l->home.node = nodetab_name(g->config.nodes, node);
  l->rank = hash_text(l->home.node);
  l->expects_end = &l->expects;
  ring_init(&l->all);
  ring_init(&l->asked);
  ring_init(&l->leases);
  ring_push(&g->links, &l->all);
  return l;
}

static void link_free(struct link *l) {
  rows_finish(&l->requests);
  rows_finish(&l->grants);
  free(l);
}

/* Removes what is left of a link that is gone, *left claims and leases at most. */
static void drop_some(struct registry *g, struct link *l, uint32_t *left) {
  for (; *left && l->home.claims; (*left)--) claims_remove(&g->claims, l->home.claims);
  for (struct ring *r; *left && (r = ring_first(&l->leases)); (*left)--)
    lease_free(g, RING_ENTRY(r, struct lease, of_link));
}

/* Removes a slice of what is left of the links that are gone, and frees those of which nothing is. */
static void drop_slice(struct registry *g) {
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
  if (g->dropping) start_slices(g);
}

json_t *registry_link_begin(struct registry *g, uint32_t node) {
  registry_link_down(g, node);
  struct link *l = link_new(g, node);
  if (!l) return NULL;
  l->cursor = g->self.claims;
  json_t *v = next_part(g, l);
  if (!v) registry_link_down(g, node);
  if (v && l->sending) start_slices(g);
  return v;
}

static void send_part(struct registry *g, struct link *l, int flags);

/* Flushes first: the cast of a part takes the requests of the next flush along, which must follow the changes
 * before them. */
bool registry_slice(struct registry *g) {
  if (g->walking || (!g->slicing && !g->dropping && !g->sweeping)) return false;
  while (registry_flush(g)) continue;
  drop_slice(g);
  sweep_slice(g);
  g->walking = true;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (l->sending == SENDS_SNAPSHOT) g->host->more(g->data, l->home.incarnation, next_part(g, l));
    if (l->sending == SENDS_ALL) send_part(g, l, 0);
  }
  g->walking = false;
  return true;
}

bool registry_link_synced(struct registry *g, uint32_t node, const json_t *v) {
  struct link *l = map_get_id(&g->by_node, node);
  if (!l) return true;
  size_t i;
  json_t *row;
  saw_token(g, json_integer_value(json_object_get(v, "highest")));
  json_array_foreach(json_object_get(v, "claims"), i, row) {
    const char *name;
    json_int_t number, token, age, over;
    json_error_t e;
    if (json_unpack_ex(row, &e, 0, "[s, I, I, I, I]", &name, &number, &token, &age, &over) ||
        procname_check(name, NULL) || !good_claim(number, token, age, over))
      continue;
    on_claim(g, l, name,
             &(struct claim_terms){.pid = npid_make(node, (uint64_t)number),
                                   .token = (uint64_t)token,
                                   .age = (uint64_t)age,
                                   .over = (uint64_t)over});
  }
  l->synced = !json_is_true(json_object_get(v, "more"));
  return l->synced;
}

void registry_link_down(struct registry *g, uint32_t node) {
  struct link *l = map_remove_id(&g->by_node, node);
  if (!l) return;
  l->gone = true;
  g->dropping++;
  claims_hide(&g->claims, &l->home);
  set_sending(g, l, SENDS_NOTHING, NULL);
  set_sweep(g, l, NULL);
  pass_over(g, l);
  drop_slice(g);
  if (g->walking) start_slices(g);
}

void registry_link_suspect(struct registry *g, uint32_t node, bool suspected) {
  struct link *l = map_get_id(&g->by_node, node);
  if (!l) return;
  l->suspected = suspected;
  if (suspected) pass_over(g, l);
}

/* --- the flush ------------------------------------------------------------------------------------------ */

/* Sends one cast: ["names", highest token, number of the round (0: none), round of the peer's that this node
 * has (0: no news), flags, changes, requests, grants]. When memory runs out the line is not sent: the peer
 * finds the difference by the version in the next heartbeat, and asks for all names. */
static void send_to(struct registry *g, struct link *l, uint64_t number, int flags,
                    const struct rows *changes) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "names");
  term_put_int(&w, (int64_t)g->highest);
  term_put_int(&w, (int64_t)number);
  term_put_int(&w, (int64_t)l->have);
  term_put_int(&w, flags);
  put_rows(&w, changes);
  put_rows(&w, &l->requests);
  put_rows(&w, &l->grants);
  struct term *t = term_from_writer(&w, 8);
  term_writer_finish(&w);
  l->have = 0;
  rows_clear(&l->requests);
  rows_clear(&l->grants);
  if (t)
    g->host->cast(g->data, l->home.incarnation, t);
  else
    log_line(g->config.log, "out of memory: %s is not told of names until the next heartbeat", l->home.node);
}

/* Sends the next part of all names of this node.  Names that it gets meanwhile are sent as changes. */
static void send_part(struct registry *g, struct link *l, int flags) {
  struct rows rows = {0};
  const struct claim *c = l->cursor;
  for (; c && rows.count < g->config.slice; c = c->next) row_of_claim(&rows, c);
  set_sending(g, l, c ? SENDS_ALL : SENDS_NOTHING, c);
  send_to(g, l, 0, flags | (c ? 0 : CAST_LAST), &rows);
  rows_finish(&rows);
}

/* Begins to send all names of this node, because the peer has found a difference. */
static void send_all(struct registry *g, struct link *l) {
  l->cursor = g->self.claims;
  send_part(g, l, CAST_FIRST);
  if (l->sending) start_slices(g);
}

static void flush_to(struct registry *g, struct link *l, const struct rows *changes, struct round *round) {
  int flags = l->want_all ? CAST_WANT_ALL : 0;
  bool asks = round && answers(l);
  bool any = asks || changes->count || l->have || flags || l->requests.count || l->grants.count;
  bool all = l->wants_all && !l->sending; /* what is on its way has all that the peer lacks */
  l->want_all = l->wants_all = false;
  if (asks) add_expect(l, round);
  if (any) send_to(g, l, round ? round->number : 0, flags, changes);
  if (all && !l->gone) send_all(g, l);
}

/* Closes the round that registrations have joined since the last flush, and returns it. NULL when no
 * registration waits for the changes. */
static struct round *begin_round(struct registry *g) {
  struct round *r = g->open_round;
  g->open_round = NULL;
  if (!r) return NULL;
  r->number = ++g->rounds;
  r->since_ms = now_of(g);
  r->open = 1; /* keeps the round open until all links have been visited */
  ring_push(&g->waiting, &r->queue);
  start_tick(g);
  return r;
}

static void flush_links(struct registry *g) {
  struct rows changes = g->changes;
  struct round *round = begin_round(g);
  g->changes = (struct rows){0};
  g->walking = true;
  for (struct ring *r = g->links.next; r != &g->links; r = r->next) {
    struct link *l = RING_ENTRY(r, struct link, all);
    if (!l->gone) flush_to(g, l, &changes, round);
  }
  g->walking = false;
  rows_finish(&changes);
  if (!round) return;
  round->open--;
  round_check(g, round);
}

bool registry_flush(struct registry *g) {
  if (g->walking || !g->dirty) return false;
  g->dirty = false;
  flush_links(g);
  deliver_ended(g);
  return true;
}

/* --- time ----------------------------------------------------------------------------------------------- */

/* Begins a round when the first registration of the queue has waited for its grant for REGISTRY_PROBE_MS: the
 * peers that do not acknowledge it are passed over with the arbiter, instead of one after the other. */
static void tick_probe(struct registry *g, const struct ring *queue, int64_t now) {
  struct ring *r = ring_first(queue);
  struct pending *p = r ? RING_ENTRY(r, struct pending, queue) : NULL;
  if (!p || p->probed || now - p->began_ms < REGISTRY_PROBE_MS) return;
  p->probed = next_round(g);
}

static void tick_asking(struct registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->asking));) {
    struct pending *p = RING_ENTRY(r, struct pending, queue);
    if (now - p->since_ms < REGISTRY_PATIENCE_MS) return;
    p->arbiter->slow = true;
    pass_over(g, p->arbiter);
  }
}

static void tick_again(struct registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->again));) {
    struct pending *p = RING_ENTRY(r, struct pending, queue);
    if (now - p->since_ms < AGAIN_MS) return;
    ask(g, p);
  }
}

static void tick_rounds(struct registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->waiting));) {
    const struct round *round = RING_ENTRY(r, struct round, queue);
    if (now - round->since_ms < REGISTRY_PATIENCE_MS) return;
    uint64_t number = round->number;
    for (struct ring *at = g->links.next; at != &g->links; at = at->next) {
      struct link *l = RING_ENTRY(at, struct link, all);
      if (!l->expects || l->expects->round->number > number) continue;
      l->slow = true;
      pass_over(g, l);
    }
  }
}

static void tick_leases(struct registry *g, int64_t now) {
  for (struct ring *r; (r = ring_first(&g->leased));) {
    struct lease *l = RING_ENTRY(r, struct lease, queue);
    if (now - l->since_ms < REGISTRY_LEASE_MS) return;
    lease_free(g, l);
  }
}

static bool idle(const struct registry *g) {
  return ring_empty(&g->asking) && ring_empty(&g->again) && ring_empty(&g->waiting) && ring_empty(&g->leased);
}

void registry_tick(struct registry *g) {
  int64_t now = now_of(g);
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
  struct registry *g = t->data;
  holds_note(g->config.holds, "waits of the registry", NULL);
  registry_tick(g);
}

static void start_tick(struct registry *g) {
  if (!g->config.loop || g->finishing || uv_is_active((const uv_handle_t *)&g->tick)) return;
  uv_timer_start(&g->tick, on_tick, REGISTRY_TICK_MS, REGISTRY_TICK_MS);
}

/* Repeats the flush, as a callback may have registered a name. */
static void on_prepare(uv_prepare_t *h) {
  struct registry *g = h->data;
  holds_note(g->config.holds, "changes of global names", NULL);
  while (registry_flush(g)) continue;
  uv_prepare_stop(h);
}

static void on_idle(uv_idle_t *h) {
  const struct registry *g = h->data;
  holds_note(g->config.holds, "the snapshot of global names", NULL);
  if (!registry_slice(h->data)) uv_idle_stop(h);
}

static void start_slices(struct registry *g) {
  if (g->config.loop && !g->finishing) uv_idle_start(&g->slice, on_idle);
}

static void mark_dirty(struct registry *g) {
  if (!g->dirty && g->config.loop && !g->finishing) uv_prepare_start(&g->flush, on_prepare);
  g->dirty = true;
}

/* --- the registry's life -------------------------------------------------------------------------------- */

static void add_handles(struct registry *g) {
  uv_prepare_init(g->config.loop, &g->flush);
  uv_timer_init(g->config.loop, &g->tick);
  uv_unref((uv_handle_t *)&g->tick);
  uv_idle_init(g->config.loop, &g->slice);
  g->flush.data = g->tick.data = g->slice.data = g;
  g->handles = 3;
}

int registry_new(const struct registry_config *config, const struct registry_host *host, void *data,
                 struct registry **out) {
  struct registry *g = calloc(1, sizeof *g);
  if (!g) return ERR_NOMEM;
  g->config = *config;
  if (!g->config.slice) g->config.slice = REGISTRY_SLICE;
  g->host = host;
  g->data = data;
  g->claims.globals = config->globals;
  g->self.node = config->self;
  g->rank = hash_text(config->self);
  struct ring *lists[] = {&g->links, &g->waiting, &g->asking, &g->again, &g->ended, &g->leased};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) ring_init(lists[i]);
  saw_token(g, host->wall_us(data)); /* tokens of earlier lives of this node are below the clock */
  if (config->loop) add_handles(g);
  *out = g;
  return 0;
}

static void free_holders(struct registry *g) {
  size_t at = 0;
  void *value;
  while (map_next(&g->holders, &at, NULL, NULL, &value)) free(value);
  map_finish(&g->holders);
}

static void end_all(struct registry *g) {
  size_t at = 0;
  void *value;
  while (g->pending.len && map_next(&g->pending, &at, NULL, NULL, &value)) {
    end_pending(g, value, ERR_LOST, "this node is stopping", false);
    at = 0; /* end_pending has changed the map */
  }
  for (struct ring *r; (r = ring_first(&g->waiting));) {
    struct round *round = RING_ENTRY(r, struct round, queue);
    round->open = 0;
    round_check(g, round);
  }
  while (deliver_ended(g)) continue;
}

static void on_closed(uv_handle_t *h) {
  struct registry *g = h->data;
  if (!--g->handles) free(g);
}

void registry_finish(struct registry *g) {
  if (!g) return;
  g->finishing = true;
  g->config.slice = UINT32_MAX; /* all at once */
  for (struct ring *r; (r = ring_first(&g->links));) {
    registry_link_down(g, RING_ENTRY(r, struct link, all)->home.incarnation);
    drop_slice(g);
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
  rows_finish(&g->changes);
  if (!g->config.loop) {
    free(g);
    return;
  }
  uv_close((uv_handle_t *)&g->flush, on_closed);
  uv_close((uv_handle_t *)&g->tick, on_closed);
  uv_close((uv_handle_t *)&g->slice, on_closed);
}

struct registry_counts registry_counts(const struct registry *g) {
  return (struct registry_counts){.known = names_count(g->config.globals),
                                  .names = g->self.count,
                                  .pending = g->pending_count,
                                  .leases = g->leases.len,
                                  .highest = g->highest,
                                  .registered = g->registered,
                                  .conflicts = g->conflicts,
                                  .resyncs = g->resyncs};
}

void registry_metrics(const struct registry *g, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct registry_counts, known), METRIC_GAUGE, METRIC_COUNT, "node_global_names",
       "Names in the global registry."},
      {METRIC(struct registry_counts, names), METRIC_GAUGE, METRIC_COUNT, "node_own_global_names",
       "Those of this node's processes."},
      {METRIC(struct registry_counts, registered), METRIC_COUNTER, METRIC_COUNT,
       "node_name_registrations_total", "Global names given to processes of this node."},
      {METRIC(struct registry_counts, conflicts), METRIC_COUNTER, METRIC_COUNT, "node_name_conflicts_total",
       "Global names that processes of this node have lost to older registrations."},
      {METRIC(struct registry_counts, resyncs), METRIC_COUNTER, METRIC_COUNT, "node_name_resyncs_total",
       "Times that the names of another node were not the ones known here, and were asked for again."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct registry_counts counts = registry_counts(g);
  metrics_put_set(out, &set, &counts);
}
