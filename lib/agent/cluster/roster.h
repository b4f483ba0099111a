/* roster: the nodes of a cluster, as etcd has them.  Each node has a key under the prefix of the cluster, on
 * a lease of ROSTER_TTL_S that it keeps:
 *
 *   m/NAME@HOST → {"creation": N, "address": "10.0.0.1", "port": 4370, "tags": "role=db web", "version": "1"}
 *
 * The key is made only where there is none.  A key of that name that outlives the time of its lease belongs
 * to another living node.  The revision that created the key tells one stay of the node in the cluster from
 * the next: requests of the node are conditional on it.  It has 64 bits, and changes when the lease was lost
 * while the node lived; the creation of the node (core/creation.h), which its pids have, does not, and is in
 * the value.
 *
 * Every node reads all keys, and watches them.  Many changes at once are told together, up to two seconds
 * late where nodes come; where nodes go, 0.3 s late, or in a cluster of more than 250 up to 1.25 ms for each
 * node and 0.9 s at most.  I/O thread only. */
#ifndef AGENT_CLUSTER_ROSTER_H
#define AGENT_CLUSTER_ROSTER_H

#include "agent/cluster/etcd.h"
#include "agent/mesh/mesh.h"

enum {
  ROSTER_TTL_S = 6,          /* the lease is kept each third of this */
  ROSTER_COUNT_MS = 600000,  /* how often the keys are counted, as etcd before 3.5.22 may lose the news of a
                                deletion */
  ROSTER_PAGE = 100,         /* keys of an answer; fewer, where others have written long values */
  ROSTER_VALUE_MAX = 1024,   /* bytes of a value; a longer one was written by no node */
  ROSTER_REFUSED_MS = 30000, /* a node that is refused tries again after so long */
};

/* Copied, but for the loop, the log, the limits and the client, which are borrowed. */
struct roster_config {
  uv_loop_t *loop;
  const struct log *log;
  struct limits *limits; /* or NULL */
  struct etcd *etcd;
  const char *prefix; /* of the keys of the cluster; ends with '/' */
  const char *self;   /* name@host */
  uint32_t creation;
  const char *address; /* where the node listens, as the host of a URL */
  uint16_t port;       /* 0: nowhere */
  const char *tags, *version;
  int64_t ttl_s, count_ms;   /* 0: ROSTER_TTL_S, ROSTER_COUNT_MS */
  int64_t (*lease_ms)(void); /* the clock by which its lease ends; NULL: clock_boot_ms */
};

/* An event may call every function of the roster except roster_free. */
struct roster_events {
  /* This node is in the cluster, by a key that was created by that revision.  Runs again, with another one,
   * after its lease was lost. */
  void (*joined)(void *data, int64_t revision);
  /* The key was kept, or lost, or is to be kept: roster_sure_ms and roster_revision may have changed. */
  void (*kept)(void *data);
  /* This node cannot be in the cluster.  ERR_NODE_TAKEN: a living node has its name, which e says where.
   * ERR_PERMISSION, ERR_VERSION, ERR_TOO_LARGE, ERR_USAGE: as etcd_done.  The roster goes on trying, and runs
   * this after each attempt that is refused. */
  void (*refused)(void *data, const struct error *e);
  /* A node is there, or is there with other values or by another key; never this node. */
  void (*present)(void *data, const struct presence *there);
  void (*gone)(void *data, const char *node);
};

struct roster;
/* Begins to join and to read.  NULL: out of memory. */
struct roster *roster_new(const struct roster_config *config, const struct roster_events *events, void *data);
/* Leaves the cluster: revokes the lease; no event runs any more.  Closes its handles. */
void roster_stop(struct roster *r);
bool roster_has_left(const struct roster *r); /* the lease was revoked, or that has failed */
/* After roster_stop and etcd_finish, and after the loop has run once more.  Both accept NULL. */
void roster_free(struct roster *r);

/* The node has another creation (mesh/renewal.h). */
void roster_renewed(struct roster *r, uint32_t creation);

/* The revision that created the key of this node; 0: it is not in the cluster. */
int64_t roster_revision(const struct roster *r);
/* For how long the key of this node is there for sure, from the sending of the last keepalive that was
 * answered; 0 or less: it may have gone. */
int64_t roster_sure_ms(const struct roster *r);
/* The revision that created the key of another node, as far as is known; 0: there is none. */
int64_t roster_find(const struct roster *r, const char *node);
/* May there have been a change, up to that revision, of which the roster has not told yet?  Then it does not
 * wait for others to be told with it. */
bool roster_is_behind(struct roster *r, int64_t revision);
/* How many other nodes there are. */
size_t roster_count(const struct roster *r);

#endif
