/* etcd_server: a small etcd for tests, on the loop of the test: members of one cluster that speak the JSON
 * gateway on ports of 127.0.0.1 that the kernel chooses, with keys, revisions, leases, transactions, watches,
 * users, and faults.  Time passes for leases only by etcd_server_pass.  Main thread only. */
#ifndef TESTS_UNIT_ETCD_SERVER_H
#define TESTS_UNIT_ETCD_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct etcd_server; /* a member */

struct etcd_server *etcd_server_new(uv_loop_t *loop);             /* the first member of a new cluster */
struct etcd_server *etcd_server_join(struct etcd_server *member); /* one more, with the same store */
/* Closes its connections; the loop is to run afterwards until no handle is left, which frees the member. */
void etcd_server_finish(struct etcd_server *m);
const char *etcd_server_url(const struct etcd_server *m); /* "http://127.0.0.1:PORT" */

enum etcd_fault {
  ETCD_WORKS,
  ETCD_404,         /* the gateway is switched off */
  ETCD_500,         /* HTTP status 500 with an error of etcd, code 2 */
  ETCD_HTML,        /* status 200, and a page */
  ETCD_BAD_GATEWAY, /* status 502, and a page */
  ETCD_SILENT,      /* takes connections and requests, and answers nothing: the process is stopped */
  ETCD_HANGS_UP,    /* closes the connection after a request, unanswered and not executed */
  ETCD_LOSES,       /* executes the request, and closes the connection instead of answering */
  ETCD_LATE,        /* executes requests, and answers them when it has another fault, or none */
  ETCD_HALF,        /* closes the connection in the middle of the answer, or of the next line of a watch */
  ETCD_NO_LEADER,   /* only serializable reads are answered; watches end */
  ETCD_OLD,         /* its revision is 1 */
  ETCD_FOREIGN,     /* its cluster has another id */
  ETCD_FULL,        /* its store takes nothing more */
  ETCD_DOWN,        /* nobody listens at the port */
};
void etcd_server_fault(struct etcd_server *m, enum etcd_fault fault);

/* --- the store ------------------------------------------------------------------------------------------ */

void etcd_server_put(struct etcd_server *m, const char *key, const char *value);
void etcd_server_delete(struct etcd_server *m, const char *key);
/* Deletes the key, and tells no watch of it, as an etcd that has lost a deletion. */
void etcd_server_lose(struct etcd_server *m, const char *key);
const char *etcd_server_value(struct etcd_server *m, const char *key); /* NULL: there is none */
int64_t etcd_server_created(struct etcd_server *m, const char *key);   /* 0: there is none */
int64_t etcd_server_modified(struct etcd_server *m, const char *key);
int etcd_server_keys(struct etcd_server *m, const char *prefix); /* how many begin with it */
int64_t etcd_server_revision(struct etcd_server *m);
/* Forgets all changes up to now, and ends the watches that have not been told them. */
void etcd_server_compact(struct etcd_server *m);

void etcd_server_pass(struct etcd_server *m, int64_t seconds); /* leases whose time is over end */
void etcd_server_expire(struct etcd_server *m, int64_t lease); /* 0: all */
void etcd_server_progress(struct etcd_server *m);    /* tells each watch of the member the revision */
void etcd_server_end_watches(struct etcd_server *m); /* ends the member's watches, without a word */

/* --- users ---------------------------------------------------------------------------------------------- */

/* From now on requests need the token that this user gets; tokens that were given die, and are then answered
 * with an error, or (rude) by hanging up. */
void etcd_server_user(struct etcd_server *m, const char *user, const char *password, bool rude);

/* --- what was asked ------------------------------------------------------------------------------------- */

int etcd_server_asked(const struct etcd_server *m,
                      const char *path);                  /* requests of the member: "/v3/kv/txn" */
int etcd_server_watches(const struct etcd_server *m);     /* that are open */
int etcd_server_connections(const struct etcd_server *m); /* that are open */

#endif
