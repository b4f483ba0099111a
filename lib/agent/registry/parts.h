/* parts: what the files of the registry of a mesh share; no other file includes it.  mesh_registry.c has the
 * invariant of the structs and the orderings.
 *
 *   mesh_registry.c  registering, waits and leases by time, the life of the registry
 *   pending.c        the end of a registration; rounds: which peers have acknowledged a change
 *   arbiter.c        who grants a name, asking it, and granting as it
 *   own.c            the claims of this node, and the processes that it watches for them
 *   links.c          what peers are sent: the snapshot, changes, requests and grants
 *   heard.c          what peers have sent
 *   cast_rows.c      one row of a cast, written and read */
#ifndef AGENT_REGISTRY_PARTS_H
#define AGENT_REGISTRY_PARTS_H

#include "agent/registry/claims.h"
#include "agent/registry/mesh_registry.h"
#include "base/ring.h"

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

struct mesh_registry {
  struct registry base;
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

static inline int64_t mesh_registry_now(const struct mesh_registry *g) {
  return g->host->now_ms(g->data);
}

static inline bool link_answers(const struct link *l) {
  return !l->gone && !l->suspected && !l->slow;
}

/* --- mesh_registry.c ------------------------------------------------------------------------------------ */

void mesh_registry_mark_dirty(struct mesh_registry *g); /* schedules the flush, before the loop waits next */
void mesh_registry_start_tick(struct mesh_registry *g); /* starts the timer of the tick */
void mesh_registry_start_slices(struct mesh_registry *g); /* starts sending slices, one in each turn */
bool mesh_registry_is_full(const struct mesh_registry *g, enum limit i, size_t count);
/* Begins a registration, as registry_register does. */
void mesh_registry_begin(struct mesh_registry *g, const char *name, npid pid, bool force, registry_done *done,
                         void *data);

/* --- pending.c ------------------------------------------------------------------------------------------ */

/* A registration; NULL: out of memory.  It is counted, and in no list yet. */
struct pending *pending_new(struct mesh_registry *g, const char *name, npid pid, bool force,
                            registry_done *done, void *data);
struct waiter *pending_waiter(npid pid, bool force, registry_done *done, void *data);

/* Forgets the request to the arbiter, because the answer has arrived or the registration no longer waits
 * for it. give_back: tells the arbiter to end the lease. */
void pending_stop_asking(struct mesh_registry *g, struct pending *p, bool give_back);

/* Ends a registration with an outcome.  Its callbacks run in the next flush, by pending_deliver, which is
 * false when there was nothing to do. */
void pending_end(struct mesh_registry *g, struct pending *p, int code, const char *what, bool yes);
bool pending_deliver(struct mesh_registry *g);

struct round *round_next(struct mesh_registry *g); /* the round of the next flush; NULL: out of memory */
/* Has a registration wait until the peers have acknowledged the changes of the next flush. */
void round_await(struct mesh_registry *g, struct pending *p);
/* Has a round wait for the acknowledgement of a peer.  Without memory the round does not wait for it. */
void round_add_expect(struct link *l, struct round *round);
/* Ends the wait for a peer's acknowledgement of the rounds up to that number. */
void round_drop_expects(struct mesh_registry *g, struct link *l, uint64_t number);
void round_check(struct mesh_registry *g, struct round *r); /* ends the round when no peer is waited for */

/* --- arbiter.c ------------------------------------------------------------------------------------------ */

uint64_t arbiter_rank(const char *node); /* the hash of a node name, or of a process name, for the ranking */
void arbiter_saw_token(struct mesh_registry *g, int64_t token);

/* Decides, as the arbiter of a name, on the request of a peer (NULL: of this node, which publishes at once
 * and needs no lease).  Returns the token, or GRANT_…. */
int64_t arbiter_decide(struct mesh_registry *g, struct link *asker, uint64_t id, const char *name,
                       bool force);
void arbiter_end_lease(struct mesh_registry *g, struct lease *l);

/* Asks the arbiter of the name: for the first time, after GRANT_AGAIN, or because the last arbiter does not
 * answer. */
void arbiter_ask(struct mesh_registry *g, struct pending *p);
void arbiter_granted(struct mesh_registry *g, struct pending *p, int64_t token); /* takes its answer */

/* Stops waiting for a peer that does not answer, is suspected or is lost: registrations ask the next node
 * in rank, and rounds end without the peer's acknowledgement. */
void arbiter_pass_over(struct mesh_registry *g, struct link *l);

/* --- own.c ---------------------------------------------------------------------------------------------- */

/* Returns the holder of a process of this node; the first call makes the holder and has the process
 * watched. NULL: out of memory. */
struct holder *holder_get(struct mesh_registry *g, npid pid);

void own_publish(struct mesh_registry *g, struct pending *p, int64_t token);
void own_withdraw(struct mesh_registry *g, struct claim *c);
/* Withdraws an own claim, because the claim of a peer takes precedence. The process of the withdrawn claim
 * is sent "name_conflict", unless the winner has replaced that registration by force. */
void own_yield(struct mesh_registry *g, struct claim *own, const struct claim *winner);

/* --- links.c -------------------------------------------------------------------------------------------- */

/* Removes a slice of what is left of the links that are gone, and frees those of which nothing is. */
void link_drop_slice(struct mesh_registry *g);
void link_set_sending(struct mesh_registry *g, struct link *l, enum sending what, const struct claim *c);

/* --- heard.c -------------------------------------------------------------------------------------------- */

void heard_claim(struct mesh_registry *g, struct link *l, const char *name, const struct claim_terms *terms);
bool heard_good_claim(int64_t number, int64_t token, int64_t age, int64_t over);
void heard_set_sweep(struct mesh_registry *g, struct link *l, struct claim *c);
void heard_sweep_slice(struct mesh_registry *g);

/* --- cast_rows.c ---------------------------------------------------------------------------------------- */

void cast_rows_finish(struct rows *r);
void cast_rows_clear(struct rows *r);                            /* empties it, and keeps a little memory */
void cast_rows_put(struct term_writer *w, const struct rows *r); /* writes them as a list; r: or NULL */
void cast_rows_add_claim(struct rows *rows, const struct claim *c);
void cast_rows_add_drop(struct rows *rows, const struct claim *c);
void cast_rows_add_request(struct rows *rows, const struct pending *p, bool release);
void cast_rows_add_grant(struct rows *rows, int64_t id, int64_t token);
/* Reads the next value, a process name, into out, NUL-terminated; false when it is not a process name. */
bool cast_rows_get_name(struct term_reader *r, char out[256]);

#endif
