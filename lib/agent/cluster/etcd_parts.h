/* etcd_parts: what the files of the client of etcd share; no other file includes it.  I/O thread only.
 *
 *   etcd.c          requests, endpoints and tokens
 *   etcd_new.c      its life, and its metrics
 *   etcd_call.c     a call: one POST to an endpoint
 *   etcd_watch.c    watches of keys
 *   etcd_verdict.c  what an answer means: whether another endpoint, or a new token, may do better
 *   etcd_json.c     requests written, and answers read
 *   etcd_url.c      the address of an endpoint */
#ifndef AGENT_CLUSTER_ETCD_PARTS_H
#define AGENT_CLUSTER_ETCD_PARTS_H

#include "agent/cluster/etcd_json.h"
#include "agent/cluster/etcd_url.h"
#include "agent/mesh/resolve.h"
#include "agent/mesh/transfers.h"

#include <sys/queue.h>

enum {
  ETCD_INLINE = 8 << 10, /* a shorter text is read on the I/O thread, a longer one in libuv's pool */
  ETCD_CONNECT_MS = 400, /* for resolving, TCP and TLS together, where there is another endpoint */
  ETCD_SILENCE_MS = 8000,
  ETCD_OPENING_MS = 3000, /* until the first line of a watch */
};

/* --- a call: one POST to the endpoint in use (etcd_call.c) ---------------------------------------------- */

struct etcd_call {
  struct transfer transfer; /* first, so that a call can be had from its transfer */
  struct etcd *c;
  int endpoint;          /* its index */
  int token;             /* the number of the token that it is sent with */
  uint64_t until_ms;     /* its time limit, by uv_now */
  uint64_t number;       /* of the call: from 1 on */
  bool endless;          /* the limit is that of connecting alone */
  struct lookup *lookup; /* until the addresses of the host are known */
  struct curl_slist *headers, *addresses;
  char why[CURL_ERROR_SIZE]; /* what libcurl says of the failure; "": nothing */
  /* Takes bytes of the answer's body: how many; 0 ends the transfer.  Runs inside of libcurl, so that it
   * must not touch a transfer. */
  size_t (*bytes)(struct etcd_call *call, const char *bytes, size_t n);
  /* Runs once, later than etcd_call_start has returned. */
  void (*ended)(struct etcd_call *call, CURLcode result, long status);
};

/* Sends the body (borrowed until the end of the call) to the path, with one more line of the header, or NULL.
 * The caller has set until_ms, endless, bytes and ended.  0 or ERR_NOMEM, and `ended` then does not run. */
int etcd_call_start(struct etcd *c, struct etcd_call *call, const char *path, const struct buf *body,
                    const char *header) MUST_CHECK;
/* Ends a call without `ended`, or frees what an ended call holds.  Accepts a call that has not begun. */
void etcd_call_finish(struct etcd_call *call);

/* --- a text of etcd's, read here or in libuv's pool (etcd_call.c) --------------------------------------- */

struct etcd_parse {
  uv_work_t work;
  struct buf text;
  struct etcd_reading reading;
  int code; /* of etcd_read */
  void (*done)(void *owner, int code, struct etcd_reading *reading);
  void *owner; /* NULL: cancelled */
};

/* Reads the text in the pool (taken), and then runs done, which borrows the reading.  NULL: out of memory. */
struct etcd_parse *etcd_parse(uv_loop_t *loop, struct buf *text,
                              void (*done)(void *owner, int code, struct etcd_reading *reading), void *owner);
void etcd_parse_cancel(struct etcd_parse *p); /* done does not run; accepts NULL */

/* --- what the end of a call means (etcd_verdict.c) ------------------------------------------------------ */

enum etcd_verdict {
  ETCD_GOOD,
  ETCD_REFUSED,   /* etcd has answered: it does not do this */
  ETCD_TOKEN,     /* not executed, since the token is missing or no longer good */
  ETCD_ELSEWHERE, /* not executed; the next endpoint may do it */
  ETCD_UNSURE,    /* maybe executed, maybe not; the next endpoint may answer */
};

/* code: of etcd_read on the body.  Sets *e for all but ETCD_GOOD. */
enum etcd_verdict etcd_judge(const struct etcd_call *call, CURLcode result, long status, int code,
                             const struct etcd_reading *reading, struct error *e);
/* Judges an error that etcd names, by gRPC's code and its message. */
enum etcd_verdict etcd_judge_error(const struct etcd_call *call, int code, const char *message,
                                   struct error *e);

/* --- the client ----------------------------------------------------------------------------------------- */

enum etcd_lane_name { LANE_REQUESTS, LANE_KEEPALIVES, LANE_LOGIN, LANES };

TAILQ_HEAD(etcd_requests, etcd_request);
TAILQ_HEAD(etcd_watches, etcd_watch);

struct etcd_lane { /* requests of a kind, which wait for one another, but not for those of other lanes */
  struct etcd_requests waiting, under_way;
  int running; /* how many are under way */
};

struct etcd_endpoint {
  struct etcd_url url;
  bool is_address;   /* the host is no name */
  char *addresses;   /* of the host's name, for CURLOPT_RESOLVE; NULL: not known */
  uint64_t asked_ms; /* when they were asked for */
  uint64_t good;     /* how many calls had begun when it last answered what needs a quorum */
};

struct etcd_stats {
  int64_t requests, failures, moves, watches, waiting, away, revision;
};

struct etcd_login {
  char *user, *password; /* NULL: nobody logs in */
  char *line;            /* of the header, with the token; NULL: there is none */
  int number;            /* of tokens that were in use before */
  bool under_way;        /* the request for a token waits, or is under way */
  bool needless;         /* etcd has no users */
  uint64_t refused_ms;   /* when user and password were refused; 0: they were not */
  struct error refusal;  /* then */
};

struct etcd {
  uv_loop_t *loop;
  const struct log *log;
  struct limits *limits;
  struct transfers *transfers;
  struct resolver *resolver;
  uv_timer_t deadline; /* of what waits longest */
  uv_idle_t soon;      /* runs when there is something to be done in the next turn */
  bool finished;

  struct etcd_endpoint *endpoints;
  int count, current; /* current: the one in use */
  uint64_t calls;     /* that have begun */
  bool moved;         /* it has not answered since it came into use */
  bool moving;        /* watches at other endpoints are to end */
  char *ca, *cert, *key;
  struct etcd_login login;

  char cluster[24];       /* the id of the cluster; "": not known yet */
  int64_t revision;       /* the highest that a request was answered with */
  uint64_t away_since;    /* 0: the last request was answered */
  struct log_limit lines; /* about being away */

  struct etcd_lane lanes[LANES];
  size_t waiting;              /* requests of all lanes */
  struct etcd_watches opening; /* that wait for their first line, in the order of their limits */
  struct etcd_watches open;
  struct etcd_watches talking; /* those of both that may have a line to be read */
  struct etcd_watch *telling;  /* the one whose function runs */
  struct etcd_stats stats;
};

/* Has what waits looked at in the next turn of the loop. */
void etcd_soon(struct etcd *c);
/* The endpoint of the call has failed: the next call is made to the next endpoint, unless this one has
 * answered another call meanwhile. Then it is etcd that has more to do than it can, and to move on, and to
 * begin the watches anew, would add to that. */
void etcd_blame(struct etcd *c, const struct etcd_call *call);
/* The token with which a call was refused is no longer used: the next call logs in. */
void etcd_drop_token(struct etcd *c, const struct etcd_call *call);
/* Is this an answer of the cluster that has answered first?  0, or ERR_VERSION with *e set. */
int etcd_check_cluster(struct etcd *c, const struct etcd_call *call, const struct etcd_reading *reading,
                       struct error *e) MUST_CHECK;

/* Sends the watches that wait. */
void etcd_watches_send(struct etcd *c);
/* Reads lines, as many as fit in a turn.  True: there are more. */
bool etcd_watches_read(struct etcd *c);
/* Ends those that are not sent. */
void etcd_watches_refuse(struct etcd *c, const struct error *e);
/* When the first of the watches that wait for their first line is late; 0: none waits. */
uint64_t etcd_watches_until(const struct etcd *c);
void etcd_watches_late(struct etcd *c); /* ends those that are late */
/* Ends some of those at other endpoints than the one in use.  True: there may be more. */
bool etcd_watches_moved(struct etcd *c);
void etcd_watches_finish(struct etcd *c, const struct error *e);

#endif
