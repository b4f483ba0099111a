/* names: the registry of global names (registry.h) of nodes whose cluster is on etcd.
 *
 * A name is a key, n/HH/NAME below the prefix of the cluster; HH, its *shard*, is a byte of a hash of the
 * name in hexadecimal. Its value is a JSON object:
 *
 *   {"pid": "two@rane.57.3", "node": "two@rane", "member": 4711, "over": 4700}
 *
 * The *owner* is the node of the process, and `member` the revision that made the key m/NODE of the owner. A
 * name counts while that key lives and was made by that revision: when a node is lost, all its names are free
 * at once, whatever is left of their keys, and a node that comes back does not have the names of its earlier
 * life. `over` (absent: 0) is the token of the registration that this one has replaced by force.
 *
 * Only the owner writes or deletes a key, and others once the owner is gone, or by force. Each write is a
 * transaction with conditions: the key is as it was last seen, and this node is a member still. The *token*
 * of a registration is the revision that wrote its key, so that each later registration of a name has a
 * larger one. Keys are on leases of NAMES_OF_LEASE names each, of NAMES_TTL_S, which go with the node.
 *
 * The table `globals` has the names that this node owns and those that it has looked up lately: whereis asks
 * etcd for all others. What was looked up stays for NAMES_KEPT_MS while a watch of its shard says what
 * becomes of it, and for NAMES_POLLED_MS where there are NAMES_WATCHES watches already. So a change that a
 * watch loses (a fault of old etcd servers) is unknown for at most NAMES_KEPT_MS.
 *
 * While etcd does not answer, a registration ends with ERR_ETCD within NAMES_ANSWER_MS, and whereis answers
 * from the table, or from what one member of etcd says by itself: such answers are *stale*. When this node
 * cannot be sure that its own member key lives (cluster_names_sure), its processes get ("name_unsure", NAME)
 * for each name, and ("name_sure", NAME) when it can again; a registration that was lost meanwhile is made
 * again, with a larger token, unless another node has the name: the process then gets ("name_conflict", NAME,
 * WINNER).  A name that is registered while the node is not sure is unsure from the start.  With `strict`,
 * names are given up instead when they become unsure, and none is registered until the node is sure again.
 *
 * I/O thread only. */
#ifndef AGENT_CLUSTER_NAMES_H
#define AGENT_CLUSTER_NAMES_H

#include "agent/registry/forward.h"
#include "base/log.h"
#include "core/names.h"
#include "core/term.h"

#include <uv.h>

enum {
  NAMES_SHARDS = 256,
  NAMES_OF_LEASE = 1000, /* etcd stops for 4 ms when a lease of so many keys ends */
  NAMES_TTL_S = 60,
  NAMES_KEEP_MS = 20000, /* a lease is kept alive so often */
  NAMES_ANSWER_MS = 1400,
  NAMES_PATIENCE_MS = 5000, /* bound on a registration while etcd answers others */
  NAMES_KEPT_MS = 60000,
  NAMES_POLLED_MS = 1000,
  NAMES_WATCHES = 64,
  NAMES_CACHE_MAX = 65536, /* names that were looked up */
  NAMES_VALUE_MAX = 1024,  /* bytes of a value; a longer one was written by no node */
  NAMES_SLICE = 500,       /* names in one turn of the loop, where all are visited */
  NAMES_AUDIT_MS = 600000  /* so often each own name is compared with its key */
};

struct cluster_names;
struct etcd;
struct holds_loop;

/* What the registry needs of its node. */
struct cluster_names_host {
  bool (*alive)(void *data, npid pid);
  /* Arranges that registry_down is called once for this process of this node. */
  MUST_CHECK int (*watch)(void *data, npid pid);
  /* Sends a message (borrowed; NULL: out of memory) to a process of this node. */
  void (*tell)(void *data, npid pid, struct term *message);
  registry_call *call;
  int64_t (*now_ms)(void *data); /* a monotonic clock */
  /* Is a node, other than this one, a member whose key was made by that revision? */
  bool (*present)(void *data, const char *node, int64_t member);
  /* May a node be a member, by a key that was made by that revision, of which this node has not heard yet? */
  bool (*behind)(void *data, int64_t member);
};

/* Copied; the objects that it points at are borrowed. */
struct cluster_names_config {
  struct etcd *etcd;
  const char *prefix; /* of all keys of the cluster; ends with '/' */
  struct nodetab *nodes;
  struct names *globals; /* the registry alone changes it */
  const struct log *log;
  struct limits *limits;    /* or NULL */
  struct holds_loop *holds; /* or NULL */
  const char *self;         /* name@host */
  uv_loop_t *loop;
  bool strict;
  const struct cluster_names_host *host;
  void *data; /* for the functions of the host */
};

/* ERR_NOMEM.  Writes nothing before cluster_names_member. */
int cluster_names_new(const struct cluster_names_config *config, struct cluster_names **out) MUST_CHECK;

/* What it does for all of the node, by the functions of registry.h.  registry_finish has the leases revoked;
 * the memory is freed by the loop, when the requests under way have ended, so etcd_finish comes after it. */
struct registry *cluster_names_base(struct cluster_names *g);

/* This node is a member, with a key that was made by that revision; 0: it is none now.  After a change the
 * names of this node are written again. */
void cluster_names_member(struct cluster_names *g, int64_t member);

/* This node has another creation (mesh/renewal.h): its names are written again, as their keys have pids of
 * the earlier one, which other nodes refuse. */
void cluster_names_renewed(struct cluster_names *g);

/* Whether this node is sure that its member key lives.  It is at first. */
void cluster_names_sure(struct cluster_names *g, bool sure);

/* Node is a member, with a key that was made by that revision: what is known of an earlier one is void. */
void cluster_names_present(struct cluster_names *g, const char *node, int64_t member);

/* Node is no member any more, or one with a key that was made by another revision. */
void cluster_names_gone(struct cluster_names *g, const char *node);

/* True when what the table has for the name may be old (registry.h). */
bool cluster_names_stale(const struct cluster_names *g, const char *name);

#endif
