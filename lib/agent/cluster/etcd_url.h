/* etcd_url: the URL of an endpoint of etcd.  Any thread. */
#ifndef AGENT_CLUSTER_ETCD_URL_H
#define AGENT_CLUSTER_ETCD_URL_H

#include "base/err.h"

#include <stdint.h>

enum { ETCD_PORT = 2379 /* where the URL has none */ };

struct etcd_url {
  char base[320]; /* "http://HOST:PORT" or "https://HOST:PORT" */
  char host[260]; /* an IPv6 address in brackets */
  uint16_t port;
};

/* 0, ERR_NOMEM, or ERR_USAGE with *e set: this is not http:// or https://, a host, and maybe a port. */
int etcd_url_parse(const char *text, struct etcd_url *out, struct error *e) MUST_CHECK;

#endif
