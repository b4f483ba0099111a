/* etcd_json: what is said to etcd's JSON gateway, and what it answers, as text.  Keys and values are base64,
 * integers of 64 bits are strings, and a member that has its default value (0, false, empty) is absent.  Any
 * thread. */
#ifndef AGENT_CLUSTER_ETCD_JSON_H
#define AGENT_CLUSTER_ETCD_JSON_H

#include "agent/cluster/etcd.h"
#include "base/buf.h"

/* --- requests: each appends one JSON object; buf_ok tells whether memory sufficed ---------------------- */

void etcd_write_range(struct buf *out, const struct etcd_range *range);
void etcd_write_grant(struct buf *out, int64_t ttl_s);
void etcd_write_lease(struct buf *out, int64_t lease);
void etcd_write_watch(struct buf *out, const char *prefix, int64_t from);
void etcd_write_login(struct buf *out, const char *user, const char *password);
/* 0, ERR_NOMEM, or ERR_TOO_LARGE: it has more than ETCD_TXN_MAX conditions, or operations in a part. */
int etcd_write_txn(struct buf *out, const struct etcd_txn *t) MUST_CHECK;

/* --- answers -------------------------------------------------------------------------------------------- */

/* How the one text of the gateway begins that is no JSON.  It is read as an error of code 7. */
#define ETCD_COMMON_NAME "CommonName of client"

/* An answer, or a line of a watch. */
struct etcd_reading {
  struct etcd_answer answer; /* its rows and texts belong to the reading */
  char cluster[24];          /* the id of the cluster, a decimal number of 64 bits */
  char *token;               /* of a login, or NULL */
  bool created, cancelled;   /* of a line of a watch: the watch has begun, has ended */
  int64_t compacted;         /* of a cancelled watch: it was to begin at a revision up to this one; else 0 */
  int code;                  /* gRPC's code of an error; 0: it is an answer; -1: cancelled for `message` */
  char message[256];         /* of the error */
  struct buf bytes;          /* what the texts of the rows are in */
};

/* 0; ERR_VERSION: this is not what etcd says; ERR_NOMEM.  On failure *out is as etcd_reading_finish leaves
 * it. */
int etcd_read(const char *text, size_t n, struct etcd_reading *out) MUST_CHECK;
void etcd_reading_finish(struct etcd_reading *r);

#endif
