/* limits: the bounds of a node.  The table below is the only list of them: `node-start --max`, its -h, its
 * man page and its completion, GET /v1/limits, `node-ps --limits` and /metrics are made from it, or compared
 * with it by tests.
 *
 * A module that holds a bound reads it with limit_max, and counts with limit_refuse what it has refused, cut
 * or made wait because of it.  `max` is set before the node begins, and does not change; `refused` may be
 * counted by any thread.  Every function takes NULL for the limits of a module that runs alone in a test: the
 * bounds are then the defaults, and nothing is counted. */
#ifndef CORE_LIMITS_H
#define CORE_LIMITS_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum limit_unit { LIMIT_COUNT, LIMIT_BYTES };

#define LIMIT_K INT64_C(1024)
#define LIMIT_M (LIMIT_K * 1024)
#define LIMIT_G (LIMIT_M * 1024)

/* Identifier, name, unit, default (0: chosen by node-start), least, most, what is counted: "at most 10 …".
 * The least value of what waits in a queue is more than the mark from which on senders are suspended; and a
 * mailbox ends its process at twice its bound, so its least bound is more than senders on all cores send
 * before they see that it is full. */
/* clang-format off */
#define LIMIT_TABLE(X) \
  X(LIMIT_MEMORY,        "memory",        LIMIT_BYTES, 0,             64 * LIMIT_M, 1024 * LIMIT_G, "resident memory of the node") \
  X(LIMIT_HEAP,          "heap",          LIMIT_BYTES, 256 * LIMIT_M, LIMIT_M,      1024 * LIMIT_G, "memory of a green thread") \
  X(LIMIT_PROCESSES,     "processes",     LIMIT_COUNT, 4190208,       16,           4190208,        "processes of all kinds") \
  X(LIMIT_MAILBOX,       "mailbox",       LIMIT_BYTES, LIMIT_G,       16 * LIMIT_M, 1024 * LIMIT_G, "messages in the mailbox of a green thread") \
  X(LIMIT_MESSAGES,      "messages",      LIMIT_COUNT, 1 << 24,       65536,        1 << 28,        "messages in the mailbox of a green thread") \
  X(LIMIT_TIMERS,        "timers",        LIMIT_COUNT, 1 << 24,       1,            1 << 30,        "timers of send_after") \
  X(LIMIT_TIES,          "ties",          LIMIT_COUNT, 1 << 25,       8,            1 << 30,        "ends of links and monitors") \
  X(LIMIT_FILES,         "files",         LIMIT_COUNT, 256,           1,            65536,          "files that a green thread has open") \
  X(LIMIT_NAMES,         "names",         LIMIT_COUNT, 1 << 20,       1,            1 << 24,        "local names") \
  X(LIMIT_NAMES_OF_ONE,  "names-of-one",  LIMIT_COUNT, 1024,          1,            16384,          "local names of a process") \
  X(LIMIT_GLOBAL_NAMES,  "global-names",  LIMIT_COUNT, 65536,         1,            1 << 20,        "global names of processes of this node") \
  X(LIMIT_REGISTRATIONS, "registrations", LIMIT_COUNT, 16384,         4,            1 << 20,        "registrations of global names under way") \
  X(LIMIT_NODES,         "nodes",         LIMIT_COUNT, 4096,          1,            16384,          "other nodes, connected or tried again") \
  X(LIMIT_MEMBERS,       "members",       LIMIT_COUNT, 16384,         16,           1 << 18,        "other nodes of a cluster that are known") \
  X(LIMIT_FOREIGN,       "foreign-nodes", LIMIT_COUNT, 65536,         16,           1 << 18,        "nodes that are known by pids alone") \
  X(LIMIT_ETCD,          "etcd-requests", LIMIT_COUNT, 4096,          16,           65536,          "requests to etcd that wait") \
  X(LIMIT_LOOKUPS,       "lookups",       LIMIT_COUNT, 4096,          8,            65536,          "host names that are being resolved") \
  X(LIMIT_PEER_QUEUE,    "peer-queue",    LIMIT_BYTES, LIMIT_G,       8 * LIMIT_M,  1024 * LIMIT_G, "data that waits for a node that does not read") \
  X(LIMIT_TUNNELS,       "tunnels",       LIMIT_COUNT, 1024,          1,            16384,          "links of other nodes that go through this node") \
  X(LIMIT_UNPROVED,      "unproved",      LIMIT_COUNT, 1024,          4,            65536,          "connections that have not proved the cookie") \
  X(LIMIT_CONNECTIONS,   "connections",   LIMIT_COUNT, 4096,          8,            65536,          "connections to the port, and as many to the socket") \
  X(LIMIT_BODY,          "body",          LIMIT_BYTES, 16 * LIMIT_M,  4 * LIMIT_K,  LIMIT_G,        "data in the body of a request") \
  X(LIMIT_BODIES,        "bodies",        LIMIT_BYTES, 256 * LIMIT_M, 64 * LIMIT_K, 1024 * LIMIT_G, "data in the bodies of all requests") \
  X(LIMIT_STREAM,        "stream",        LIMIT_BYTES, 512 * LIMIT_M, 4 * LIMIT_M,  1024 * LIMIT_G, "data that waits for a client that does not read") \
  X(LIMIT_COMMANDS,      "commands",      LIMIT_COUNT, 4096,          1,            65536,          "commands that run at a time") \
  X(LIMIT_USERS,         "users",         LIMIT_COUNT, 16,            1,            1024,           "users that are being looked up") \
  X(LIMIT_STDIN,         "stdin",         LIMIT_BYTES, 16 * LIMIT_M,  2 * LIMIT_M,  LIMIT_G,        "data that waits for the standard input of a command") \
  X(LIMIT_OUTCOMES,      "outcomes",      LIMIT_COUNT, 1000,          1,            1 << 20,        "ended commands that are remembered") \
  X(LIMIT_OUTPUT,        "output",        LIMIT_BYTES, 64 * LIMIT_M,  LIMIT_M,      64 * LIMIT_G,   "last output of commands that is kept") \
  X(LIMIT_FOLLOWERS,     "followers",     LIMIT_COUNT, 64,            1,            4096,           "processes that follow the output of a command") \
  X(LIMIT_CONSOLE,       "console",       LIMIT_BYTES, 64 * LIMIT_M,  8 * LIMIT_M,  64 * LIMIT_G,   "output that waits to be written to the console") \
  X(LIMIT_LOG,           "log",           LIMIT_BYTES, LIMIT_M,       64 * LIMIT_K, LIMIT_G,        "log lines that wait to be written")
/* clang-format on */

enum limit {
#define X(id, ...) id,
  LIMIT_TABLE(X)
#undef X
      LIMITS
};

struct limits {
  int64_t max[LIMITS]; /* 0: the default */
  _Atomic uint64_t refused[LIMITS];
  _Atomic int64_t taken[LIMITS]; /* of quotas, and by limit_use */
};

/* Sets each bound that is 0 to its default. */
void limits_init(struct limits *l);

const char *limit_name(enum limit i);
enum limit_unit limit_unit(enum limit i);
const char *limit_what(enum limit i); /* what is counted */
int64_t limit_standard(enum limit i); /* the default */
int64_t limit_least(enum limit i);
int64_t limit_most(enum limit i);

static inline int64_t limit_max(const struct limits *l, enum limit i) {
  return l && l->max[i] ? l->max[i] : limit_standard(i);
}

/* Counts a refusal. */
void limit_refuse(struct limits *l, enum limit i);
uint64_t limit_refused(const struct limits *l, enum limit i);

/* Counts n more (negative: fewer) in use of a bound that has no quota, for who lists the bounds: limit_used.
 */
void limit_use(struct limits *l, enum limit i, int64_t n);
int64_t limit_used(const struct limits *l, enum limit i);

/* Reads BOUND=VALUE into *l; a VALUE is a whole number, or, of bytes, one such as 64K, 100M or 2G. ERR_USAGE:
 * the text lists what there is.  limit_set takes the VALUE alone. */
int limit_read(struct limits *l, const char *text, struct error *e) MUST_CHECK;
int limit_set(struct limits *l, enum limit i, const char *value, struct error *e) MUST_CHECK;

/* Writes a value as limit_read reads it: 1000, 64K, 1G. */
enum { LIMIT_VALUE_SIZE = 24, LIMIT_TEXT_SIZE = 160 };
char *limit_format(enum limit i, int64_t value, char out[LIMIT_VALUE_SIZE]);

/* Writes the text of the error at a bound: "at most 10 timers of send_after (node-start --max timers)".
 * limit_error counts the refusal, too, and puts the text into *e, behind "what: " unless what is NULL;
 * returns ERR_BUSY. */
char *limit_text(const struct limits *l, enum limit i, char out[LIMIT_TEXT_SIZE]);
int limit_error(struct limits *l, enum limit i, const char *what, struct error *e);

/* A quota counts what many threads make, without a shared counter at each one: a holder, which one thread at
 * a time uses, takes a batch of them from l->taken, and gives a batch back when it has more than it needs. So
 * a bound of 2^18 or more is held to within 128 for each holder; a smaller one exactly.  Zero-initialized a
 * quota has nothing. */
struct quota {
  int32_t credit; /* taken from l->taken, and not in use */
};

bool quota_refill(struct quota *q, struct limits *l, enum limit i);
void quota_return(struct quota *q, struct limits *l, enum limit i);
enum { QUOTA_BATCH = 64 };

/* False at the bound, which is counted as a refusal. */
static inline bool quota_take(struct quota *q, struct limits *l, enum limit i) {
  if (q->credit == 0 && !quota_refill(q, l, i)) return false;
  q->credit--;
  return true;
}

/* n that were taken end. */
static inline void quota_give(struct quota *q, struct limits *l, enum limit i, int32_t n) {
  q->credit += n;
  if (q->credit >= 2 * QUOTA_BATCH || limit_max(l, i) < INT64_C(1) << 18) quota_return(q, l, i);
}

#endif
