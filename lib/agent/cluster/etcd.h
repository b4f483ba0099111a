/* etcd: a client of etcd, by the JSON gateway that every member has beside gRPC (etcd 3.4 and newer: paths
 * under /v3, HTTP/1.1). Keys are texts, values are bytes.
 *
 * The client has a few connections for requests, others for the keepalives of leases, and one for each watch,
 * so that none waits behind another. It talks to one endpoint, chosen at random, and goes to the next one
 * when that one fails or does not answer in time: the watches at the former endpoint then end. Each request
 * has its own time limit, at the server too.
 *
 * A transaction is sent to another endpoint only where it was surely not executed: when its answer is lost,
 * whether it was executed is not known, and the caller must look (all transactions of this node are
 * conditions on revisions, so that repeating one is harmless). A lost request of another kind is sent again,
 * while its time lasts. libcurl sends a request again when etcd has closed the connection that it had kept.
 *
 * Requests that were sent after one another may be executed in another order. The events of one watch arrive
 * in the order of their revisions; an event may arrive before or after the answer to the request that has
 * caused it.
 *
 * I/O thread only. */
#ifndef AGENT_CLUSTER_ETCD_H
#define AGENT_CLUSTER_ETCD_H

#include "agent/cluster/etcd_access.h"
#include "base/err.h"
#include "base/log.h"
#include "core/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum {
  ETCD_REQUEST_MS = 1000, /* time limit of a request, at the server and here together with ETCD_GRACE_MS */
  ETCD_GRACE_MS = 300,
  ETCD_TXN_MAX = 128,        /* operations in one transaction: etcd's own default */
  ETCD_ANSWER_MAX = 3 << 20, /* a value has at most 1.5 MiB, 2 MiB as base64 */
  ETCD_ROWS = 64,            /* changes that a watch tells in a turn of the loop */
};

/* The texts are copied; the loop, the log and the limits are borrowed. */
struct etcd_config {
  uv_loop_t *loop;
  const struct log *log;
  struct limits *limits;        /* or NULL */
  const char *const *endpoints; /* http:// or https://, host and port; NULL ends */
  struct etcd_access access;
};

struct etcd;

/* ERR_NOMEM, ERR_USAGE, ERR_SYSTEM, ERR_PERMISSION (the certificate has expired) with *e set.  Connects to
 * nothing yet. */
int etcd_new(const struct etcd_config *config, struct etcd **out, struct error *e) MUST_CHECK;
/* Ends each request and watch with ERR_LOST (their callbacks run), and closes the handles; etcd_free after
 * the loop has run once more.  Both accept NULL. */
void etcd_finish(struct etcd *c);
void etcd_free(struct etcd *c);

/* --- requests ------------------------------------------------------------------------------------------- */

struct etcd_row {
  const char *key, *value; /* NUL-terminated, and others may have written NULs into them, too */
  size_t key_size, size;
  int64_t created, modified; /* revisions */
  int64_t lease;             /* 0: none */
  bool deleted;              /* of a watch: the key was deleted, by the revision `modified` */
};

/* Is the key a text of up to so many bytes, with a value of up to so many?  Others may have written below a
 * prefix what none of these nodes writes: it is told by this before it is read, as that may take long. */
bool etcd_row_fits(const struct etcd_row *row, size_t key, size_t value);

/* What a request was answered; borrowed.  Fields that its kind of request does not have are 0. */
struct etcd_answer {
  int64_t revision; /* of the store, when the request was executed */
  bool succeeded;   /* of a transaction: its conditions held */
  const struct etcd_row *rows;
  size_t n;
  int64_t count; /* of a range: how many keys it has, whatever its limit */
  int64_t lease; /* the lease that was granted or kept */
  int64_t ttl_s; /* of a lease: its time; 0 of a keepalive: the lease has gone */
};

/* Runs exactly once.  e: NULL, or ERR_ETCD (no endpoint has answered in time, etcd has no leader, or its
 * store is full), ERR_PERMISSION (user, password or certificate are refused), ERR_NO_NAME (the lease has
 * gone, but for a keepalive, whose ttl_s says so), ERR_VERSION (what answers is no etcd, has its gateway
 * switched off, is of another cluster, or its store went back), ERR_TOO_LARGE, ERR_USAGE (etcd does not take
 * the request), ERR_LOST (etcd_finish).  With ERR_NOMEM, ERR_TOO_LARGE (a transaction) and ERR_BUSY
 * (LIMIT_ETCD), and after etcd_finish, it may run before the call that makes the request returns; else it
 * runs later. */
typedef void etcd_done(void *data, const struct error *e, const struct etcd_answer *answer);

/* A range: the key itself, or all keys that begin with it. */
struct etcd_range {
  const char *key;
  bool prefix, count_only;
  bool serializable; /* answered by one member alone, maybe stale, also without a quorum */
  int64_t limit;     /* of rows; 0: none */
  const char *after; /* only keys that sort after this one, or NULL: for the pages of a long range */
  size_t after_size;
};
void etcd_get(struct etcd *c, const struct etcd_range *range, etcd_done *done, void *data);

void etcd_grant(struct etcd *c, int64_t ttl_s, etcd_done *done, void *data);
void etcd_keepalive(struct etcd *c, int64_t lease, etcd_done *done, void *data);
void etcd_revoke(struct etcd *c, int64_t lease, etcd_done *done, void *data);

/* A transaction: conditions, what is done when all of them hold, and what is done otherwise.  The functions
 * that add to it accept NULL, and a transaction for which memory ran out fails with ERR_NOMEM when it is
 * sent. */
struct etcd_txn;
enum etcd_part { ETCD_THEN, ETCD_ELSE };
struct etcd_txn *etcd_txn_new(void);
void etcd_txn_free(struct etcd_txn *t);
/* The condition that the key was created (modified) by that revision, or, with `not`, that it was not.
 * Revision 0: the key does not exist. */
void etcd_txn_if_created(struct etcd_txn *t, const char *key, bool not, int64_t revision);
void etcd_txn_if_modified(struct etcd_txn *t, const char *key, bool not, int64_t revision);
/* value NULL: memory ran out as it was made. */
void etcd_txn_put(struct etcd_txn *t, enum etcd_part part, const char *key, const char *value, int64_t lease);
void etcd_txn_get(struct etcd_txn *t, enum etcd_part part, const char *key);
void etcd_txn_delete(struct etcd_txn *t, enum etcd_part part, const char *key);
/* Sends it, and frees it.  The rows of the answer are those of its gets, in their order; a key that does not
 * exist has a row with created == 0 and the key "". */
void etcd_txn_send(struct etcd *c, struct etcd_txn *t, etcd_done *done, void *data);

/* --- watches -------------------------------------------------------------------------------------------- */

struct etcd_watch;
struct etcd_watch_events {
  /* Everything up to that revision, but what the rows (borrowed, at most ETCD_ROWS) say, was told before.  n
   * 0: nothing has changed up to there.  Rows may be of later revisions, when more rows follow in the next
   * turn of the loop. */
  void (*changed)(void *data, int64_t revision, const struct etcd_row *rows, size_t n);
  /* The watch has ended, with the last call of a function of this table: the connection was lost, etcd has no
   * leader, or (compacted) etcd no longer has the changes from the revision on from which it was to begin.
   * The caller begins another watch behind what this one has told; where that is compacted, it reads the
   * range before. */
  void (*ended)(void *data, const struct error *e, bool compacted);
};

/* Watches all keys that begin with the prefix, from that revision on.  NULL: out of memory. */
struct etcd_watch *etcd_watch(struct etcd *c, const char *prefix, int64_t from,
                              const struct etcd_watch_events *events, void *data);
/* Ends a watch; none of its events runs any more.  Accepts NULL. */
void etcd_unwatch(struct etcd_watch *w);

/* --- state ---------------------------------------------------------------------------------------------- */

/* For how long no endpoint has answered, by the loop's clock; 0: the last request was answered. */
int64_t etcd_away_ms(const struct etcd *c);

/* No request waits, or is under way. */
bool etcd_is_idle(const struct etcd *c);

struct metrics;
void etcd_metrics(const struct etcd *c, struct metrics *out);

#endif
