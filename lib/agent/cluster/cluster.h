/* cluster: what a node whose cluster is on etcd has of it: the client, the seal, the roster and the registry
 * of names.  The roster tells the mesh which nodes there are, and the registry which names are void.
 *
 * cluster_new asks etcd, for at most CLUSTER_START_MS, whether this node may be in the cluster.  When etcd
 * does not answer, the node starts without it, and joins when it does.  What etcd refuses then, or later, is
 * logged and tried again every CLUSTER_AGAIN_MS, while all that needs no etcd goes on.
 *
 * I/O thread only. */
#ifndef AGENT_CLUSTER_CLUSTER_H
#define AGENT_CLUSTER_CLUSTER_H

#include "agent/cluster/etcd_access.h"
#include "agent/cluster/names.h"
#include "agent/mesh/mesh.h"
#include "wire/psk.h"

enum {
  CLUSTER_START_MS = 2000,
  CLUSTER_AGAIN_MS = 30000,
  CLUSTER_RETRY_MS = 500,    /* between two attempts to join while etcd does not answer */
  CLUSTER_MARGIN_MS = 1000,  /* the names are unsure so long before the key of the node may end */
  CLUSTER_FAREWELL_MS = 500, /* how long the end of the node waits for etcd */
};

struct cluster;

/* Copied; what it points at is borrowed, and outlives the cluster. */
struct cluster_config {
  uv_loop_t *loop;
  const struct log *log;
  struct limits *limits;
  struct holds_loop *holds;
  struct nodetab *nodes;
  struct names *globals;
  const struct psk_set *psks; /* read whenever the seal is checked */
  const char *spec;           /* etcd:URL,URL/NAME */
  struct etcd_access etcd;
  const char *self, *tags, *version;
  uint32_t creation;
  const char *address;                   /* the IP address on which the node listens */
  uint16_t port;                         /* 0: nowhere */
  bool strict;                           /* names are given up when they become unsure */
  const struct cluster_names_host *host; /* its functions may call cluster_has and cluster_is_behind */
  void *data;
};

/* On failure, too, *out is a cluster, or NULL, that is to be finished and freed.  ERR_USAGE, ERR_NOMEM,
 * ERR_SYSTEM; ERR_COOKIE and the other errors of seal_done, but not ERR_ETCD. */
int cluster_new(const struct cluster_config *config, struct cluster **out, struct error *e) MUST_CHECK;

struct registry *cluster_registry(struct cluster *c); /* NULL: cluster_new has failed */

/* Begins to join, and to tell the mesh of the nodes. */
void cluster_start(struct cluster *c, struct mesh *mesh);

/* Removes the key of this node, so that the others learn at once that it has left.  These three accept
 * NULL. */
void cluster_leave(struct cluster *c);
/* After registry_finish: waits, for CLUSTER_FAREWELL_MS at most while the loop runs, for what the registry
 * and the roster still have to say, and closes the handles. */
void cluster_finish(struct cluster *c);
void cluster_free(struct cluster *c); /* after the loop has run until its handles are closed */

/* The node has another creation; its psks have changed.  Both accept NULL. */
void cluster_renewed(struct cluster *c, uint32_t creation);
void cluster_cookies_changed(struct cluster *c);

/* Is a node, other than this one, a member whose key was made by that revision? */
bool cluster_has(const struct cluster *c, const char *node, int64_t member);

/* May there be a member, by a key of up to that revision, of which the roster has not told yet? */
bool cluster_is_behind(const struct cluster *c, int64_t member);

/* Is the key of this node there for sure?  If not, etcd has not answered of late, or the node has not joined
 * yet, and what is known of other nodes may be old. */
bool cluster_is_sure(const struct cluster *c);

/* True when what the table of global names has for the name may be old (registry.h).  Accepts NULL. */
bool cluster_is_stale(const struct cluster *c, const char *name);

void cluster_metrics(const struct cluster *c, struct metrics *out);

#endif
