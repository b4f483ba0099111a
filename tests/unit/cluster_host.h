/* cluster_host: what tests of a cluster on etcd have in common. Main thread only. */
#ifndef TESTS_UNIT_CLUSTER_HOST_H
#define TESTS_UNIT_CLUSTER_HOST_H

#include "agent/cluster/etcd.h"
#include "agent/cluster/names.h"
#include "wire/psk.h"

/* These two abort where they fail. */
struct etcd *cluster_client(uv_loop_t *loop, const char *url);
struct psk_set cluster_keys(const char *cookies); /* a line each */

/* Functions of a cluster_names_host: every process lives, and none is watched or told anything. */
bool cluster_host_alive(void *data, npid pid);
int cluster_host_watch(void *data, npid pid);
void cluster_host_tell(void *data, npid pid, struct term *message);
int64_t cluster_host_now_ms(void *data);

struct outcome { /* of what a registry was asked for; all 0 at first */
  int times;     /* how often it was told */
  int code;      /* of the error; 0: none */
  bool yes;      /* registered, removed or found */
  bool stale;    /* this and the pid: of a look-up alone */
  npid pid;
  uint64_t token;
};
void outcome_done(void *data, const struct error *e, bool yes, uint64_t token); /* a registry_done */
void outcome_found(void *data, const struct error *e, npid pid, uint64_t token, bool stale);

#endif
