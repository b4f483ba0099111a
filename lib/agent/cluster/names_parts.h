/* names_parts: what the files of the registry on etcd share; no other file includes it.  names.c has the
 * invariant of the structs and the orderings.
 *
 *   names.c        what the rest of the node calls; the life of the registry
 *   names_own.c    own names, and what becomes of all of them
 *   names_write.c  the queue of writes, and the transactions that they are put together in
 *   names_lease.c  the leases of own names
 *   names_read.c   look-ups, what is remembered of them, the watches of shards
 *   names_answer.c tells those who wait, in slices
 *   names_row.c    keys and values, written and read */
#ifndef AGENT_CLUSTER_NAMES_PARTS_H
#define AGENT_CLUSTER_NAMES_PARTS_H

#include "agent/cluster/etcd.h"
#include "agent/cluster/names.h"
#include "base/map.h"
#include "base/ring.h"
#include "core/limits.h"
#include "core/nodename.h"

#include <sys/queue.h>

/* --- own names ------------------------------------------------------------------------------------------ */

/* A lease of own names.  `count` is the number of its names and of the writes under way that use it. */
struct lease {
  struct ring all;
  struct ring own; /* its names; as it is lost they go to `unleased` of the registry */
  int64_t id;      /* 0: it is being asked for */
  int64_t kept_ms;
  bool keeping; /* a keepalive is under way */
  bool lost;    /* it has run out at etcd: freed once it is not used any more */
  size_t count;
  struct cluster_names *names;
};

struct own { /* a name that a process of this node has */
  struct ring all, of_process, of_lease;
  struct holder *holder;
  npid pid;
  int64_t token;
  struct lease *lease;
  bool unsure; /* its process was told so */
  char name[];
};

struct holder { /* a watched process */
  npid pid;
  struct ring own, writes, all;
  bool gone; /* it has ended, which hides its names (names_hide); they are given up in slices */
};

/* --- who waits ------------------------------------------------------------------------------------------ */

struct waiter {
  STAILQ_ENTRY(waiter) next;
  registry_done *done;   /* of a registration or removal; counted in `pending` of the registry */
  registry_found *found; /* of a look-up */
  void *data;
  npid pid;   /* of a registration */
  bool force; /* the same */
};

STAILQ_HEAD(waiters, waiter);

struct answer {
  struct ring all;
  struct waiters waiters; /* those who are not told yet */
  struct error e;         /* code 0: none */
  npid pid;
  int64_t token;
  bool yes, stale;
};

/* --- writes --------------------------------------------------------------------------------------------- */

enum write_kind {
  WRITE_REGISTER,
  WRITE_AGAIN,  /* of an own name whose key was lost, or is of an earlier life of this member */
  WRITE_REMOVE, /* of an own name */
  WRITE_CLEAN   /* of what a registration, whose outcome is not known, may have left */
};

/* A write under way; at most one for a name.  It is in `queued` or in `sent`. */
struct write {
  enum write_kind kind;
  struct ring queue, of_process;
  struct ring by_age;    /* in `waited` of the registry while somebody waits for it */
  struct holder *holder; /* or NULL: of WRITE_CLEAN, and of a process that has ended */
  npid pid;
  bool force;
  bool sent;    /* it is in a transaction */
  bool tried;   /* it has been sent, and may have been executed */
  bool dead;    /* its process has ended, or its asker was told that it has failed */
  bool kept;    /* a removal whose asker was told that it has failed: the name is to stay */
  int64_t seen; /* the revision that the key must have; 0: it must not exist */
  int64_t over; /* token of another node's registration that it replaces by force; 0: none */
  npid over_pid;
  int64_t guard; /* `owner` must not be a member with the key of that revision; 0: no condition */
  int64_t began_ms;
  struct lease *lease;
  struct waiters waiters, behind; /* who is told the outcome; who begins after it */
  char *owner;                    /* of the guard; NULL: none */
  char name[];
};

/* --- what was looked up --------------------------------------------------------------------------------- */

struct owner { /* another node that has names in the table */
  int64_t member;
  bool gone; /* hides its names; they are removed in slices */
  struct ring known, all;
  char node[];
};

struct known { /* a name of another node, in the table */
  struct ring of_owner, of_shard, by_time;
  struct owner *owner;
  int64_t token, since_ms;
  uint8_t shard;
  bool watched;   /* in the list of those that stay for NAMES_KEPT_MS */
  unsigned watch; /* the number of the watch since which it was looked up, or that told of it */
  char name[];
};

struct lookup { /* a look-up under way; at most one for a name */
  struct ring queue;
  struct cluster_names *names;
  bool sent, alone;       /* alone: one member of etcd is asked, for an answer that may be stale */
  bool again;             /* it began because a watch has ended */
  int64_t since_ms;       /* when it began to wait in `asking` */
  int64_t heard;          /* revision of the last change that a watch has told of the name meanwhile */
  int64_t late_ms;        /* when it first waited for the roster; 0: it has not */
  struct waiters waiters; /* none: nobody waits for it */
  char name[];
};

struct shard {
  struct cluster_names *names;
  struct etcd_watch *watch; /* or NULL */
  unsigned ended;           /* how many watches of it have ended by themselves */
  struct ring known;
  struct ring lapsed; /* those that are to be looked up again, as their watch has ended */
};

/* --- the registry --------------------------------------------------------------------------------------- */

enum {
  NAMES_BATCH = ETCD_TXN_MAX - 1
}; /* conditions of writes in one transaction; one more is the member's */

struct cluster_names {
  struct registry base;
  struct cluster_names_config config;
  char *self_key; /* m/NODE of this node */
  int64_t member;
  unsigned renewals; /* how often the node has got another creation */
  bool sure, finishing;
  int requests; /* under way at etcd */

  struct map own, holders; /* by name; by pid, without those that have ended */
  size_t holders_at;       /* which of them are freed, at the end of the registry */
  struct ring all_own;
  struct ring unleased;     /* own names whose lease has run out, to be written again */
  struct ring holders_gone; /* processes that have ended and still have names or writes */
  struct ring *telling;     /* the next own name that is told whether it is sure; NULL: all are */
  struct ring *again;       /* the next own name that is written again; NULL: none */
  struct ring *audit;       /* the next own name that is compared with its key; NULL: the first */
  int64_t audited_ms;
  bool auditing;

  struct map writes; /* by name */
  struct ring queued, sent;
  struct ring waited; /* writes for which somebody waits, in the order of began_ms */
  size_t pending;     /* registrations that wait for an outcome */
  struct ring answers;
  struct ring resumed; /* requests that wait no longer for a write, by name, */
  struct map resuming; /* and which names these are of */
  bool writing;
  int64_t answered_ms; /* when etcd last answered a write */
  int64_t held_ms;     /* no write is sent before, because one has failed */
  int64_t hold_ms;     /* for how long the next failure holds the writes */
  int64_t sent_ms;     /* when the transaction under way was sent */
  size_t batch;        /* conditions in the next transaction */
  uint64_t random;
  struct ring leases;
  struct lease *lease; /* for new names; NULL: none yet */

  struct map known, owners, lookups;
  struct ring watched, polled; /* of `known`, the oldest first */
  struct ring owners_gone;
  struct ring asking; /* look-ups that are not sent, in the order of since_ms */
  struct ring late;   /* those that the next tick sends again, as the roster has not heard of the owner yet */
  bool reading;
  size_t looks_again; /* look-ups under way that began because a watch has ended */
  int alone;          /* requests to one member that are under way */
  int64_t failed_ms;  /* when a quorum of etcd last did not answer a read; 0: it has since */
  int64_t read_ms;    /* when etcd, or one member of it, last answered a read */
  struct shard shards[NAMES_SHARDS];
  int watches;
  bool lapsed; /* a shard has names that are to be looked up again */

  uint64_t registered, conflicts, resyncs;
  int64_t highest;
  uv_timer_t tick;
  uv_idle_t slice;
  int handles;
};

static inline int64_t names_now(const struct cluster_names *g) {
  return g->config.host->now_ms(g->config.data);
}

/* --- names_own.c ---------------------------------------------------------------------------------------- */

/* The own name, or NULL; one whose process has ended is given up. */
struct own *names_own(struct cluster_names *g, const char *name);
/* Has a process have the name; ERR_NOMEM: nothing has changed. */
int names_own_put(struct cluster_names *g, const char *name, npid pid, int64_t token, struct lease *lease);
void names_own_remove(struct cluster_names *g, struct own *o);
struct holder *names_holder(struct cluster_names *g, npid pid);           /* NULL: out of memory */
void names_tell(struct cluster_names *g, npid pid, struct term *message); /* consumed */
void names_process_down(struct cluster_names *g, npid pid);
/* The work on own names that is done in slices; takes what it has done off *left. */
void names_own_slice(struct cluster_names *g, int *left);
void names_audit(struct cluster_names *g, int64_t now); /* compares some own names with their keys */
/* Frees own names and watched processes at the end of the registry. */
void names_own_end(struct cluster_names *g, int *left);

/* --- names.c -------------------------------------------------------------------------------------------- */

void names_start(struct cluster_names *g);        /* has the tick run soon, as something is under way */
void names_start_slices(struct cluster_names *g); /* does what is done in slices, one in each turn */
void names_request_done(struct cluster_names *g); /* a request to etcd has ended: maybe frees the registry */
/* Registers a name; earlier requests for it have begun. */
void names_enter_now(struct cluster_names *g, const char *name, npid pid, bool force, registry_done *done,
                     void *data);
/* What began then for the name is to fail, with *e, because etcd has answered nothing of its kind for
 * NAMES_ANSWER_MS, or because it has waited for its turn for NAMES_PATIENCE_MS.  answered_ms: when etcd last
 * answered something of that kind. */
bool names_late(const char *name, int64_t now, int64_t began_ms, int64_t answered_ms, struct error *e);

/* --- names_write.c -------------------------------------------------------------------------------------- */

/* Begins a write of a name that has none.  NULL: out of memory; done does not run. */
struct write *names_write(struct cluster_names *g, enum write_kind kind, const char *name, npid pid,
                          int64_t seen, registry_done *done, void *data);
void names_write_fail(struct cluster_names *g, struct write *w,
                      const struct error *e);                    /* tells the waiters */
void names_write_free(struct cluster_names *g, struct write *w); /* without telling anybody */
void names_pump_writes(struct cluster_names *g);
void names_tick_writes(struct cluster_names *g, int64_t now);
/* Tells those who wait for a write that this node stops. */
void names_writes_finish(struct cluster_names *g);
void names_writes_end(struct cluster_names *g, int *left); /* frees the writes at the end of the registry */
/* Fails some of the writes that take too long. */
void names_fail_old(struct cluster_names *g, int64_t now, int *left);
/* Somebody waits for a write for which nobody has waited. */
void names_wait(struct cluster_names *g, struct write *w);
bool names_dead(const struct write *w); /* its process has ended, or its asker was told that it has failed */
/* Writes an own key again, whose lease or condition was lost, or that differs; nothing while a write of the
 * name is under way. */
void names_write_again(struct cluster_names *g, struct own *o);

/* --- names_lease.c -------------------------------------------------------------------------------------- */

/* A lease with room for a name, which is counted; NULL: none yet, one is being asked for. */
struct lease *names_lease_take(struct cluster_names *g);
void names_lease_use(struct lease *l);                           /* one user more */
void names_lease_give(struct cluster_names *g, struct lease *l); /* one user less; NULL: nothing */
void names_lease_lost(struct cluster_names *g, struct lease *l); /* its names are written again, on others */
void names_tick_leases(struct cluster_names *g, int64_t now);
void names_leases_finish(struct cluster_names *g);

/* --- names_read.c --------------------------------------------------------------------------------------- */

void names_find(struct cluster_names *g, const char *name, registry_found *found, void *data);
void names_known_remove(struct cluster_names *g, struct known *k);
void names_tick_reads(struct cluster_names *g);
/* The work on names of others that is done in slices; takes what it has done off *left. */
void names_read_slice(struct cluster_names *g, int *left);
void names_reads_finish(struct cluster_names *g); /* tells those who wait */
void names_known_end(struct cluster_names *g,
                     int *left); /* frees names of others at the end of the registry */

/* --- names_answer.c ------------------------------------------------------------------------------------- */

struct waiter *names_waiter(npid pid, bool force, registry_done *done, void *data); /* NULL: out of memory */
/* Tells those who wait; their list is taken. */
void names_answer(struct cluster_names *g, struct answer *a);
/* Begins requests for the name, which have waited for a write of it; their list is taken. */
void names_resume(struct cluster_names *g, const char *name, struct waiters *all);
bool names_resumes(const struct cluster_names *g, const char *name); /* are some of these yet to begin? */
/* Has a request begin behind those.  It is counted. */
void names_resume_behind(struct cluster_names *g, const char *name, struct waiter *w);
void names_answer_slice(struct cluster_names *g, int *left);

/* --- names_row.c ---------------------------------------------------------------------------------------- */

enum { NAMES_KEY_SIZE = 768 };

struct row { /* what the value of a key says */
  npid pid;
  int64_t member, over;
  char node[NODENAME_SIZE];
};

uint8_t names_shard(const char *name);
/* out is returned */
const char *names_key(const struct cluster_names *g, const char *name, char out[NAMES_KEY_SIZE]);
const char *names_member_key(const struct cluster_names *g, const char *node, char out[NAMES_KEY_SIZE]);
const char *names_shard_key(const struct cluster_names *g, int shard, char out[NAMES_KEY_SIZE]);
/* The name that the row of a shard is of; NULL: it is of none. */
const char *names_of_row(const struct cluster_names *g, const struct etcd_row *row);
/* The value, a heap string; NULL: out of memory. */
char *names_value(const struct cluster_names *g, npid pid, int64_t over);
/* False when the value is no such object. */
bool names_read_row(const struct cluster_names *g, const struct etcd_row *from, struct row *out);

#endif
