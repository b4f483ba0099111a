/* etcd_access: how etcd knows a node, and the node etcd. */
#ifndef AGENT_CLUSTER_ETCD_ACCESS_H
#define AGENT_CLUSTER_ETCD_ACCESS_H

struct etcd_access {
  const char *user, *password; /* or NULL */
  const char *ca, *cert, *key; /* files in PEM, or NULL */
};

#endif
