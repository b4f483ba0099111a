/* spec: the text that names a cluster, for --cluster: etcd:URL,URL/NAME.  Any thread. */
#ifndef AGENT_CLUSTER_SPEC_H
#define AGENT_CLUSTER_SPEC_H

#include "agent/cluster/etcd_url.h"

enum { CLUSTER_ENDPOINTS = 16, CLUSTER_NAME_MAX = 128 };
#define CLUSTER_KEYS "/node-toolkit/v1/" /* all keys of all clusters begin with it */

struct cluster_spec {
  int count;
  struct etcd_url endpoints[CLUSTER_ENDPOINTS];
  char prefix[sizeof CLUSTER_KEYS + CLUSTER_NAME_MAX + 1]; /* of the keys of this cluster; ends with '/' */
};

/* NAME is letters, digits, and ". _ -".  ERR_USAGE or ERR_NOMEM with *e set; *out is then untouched. */
int cluster_spec_parse(const char *text, struct cluster_spec *out, struct error *e) MUST_CHECK;

#endif
