/* seal: the key `c` of a cluster in etcd, which tells the nodes of one cookie from others, so that no two
 * clusters use the same keys.  Its value is a JSON object:
 *
 *   {"version": 1, "salt": "32 hexadecimal digits", "cookie": "64 hexadecimal digits"}
 *
 * `cookie` is scrypt (RFC 7914; N 4096, r 8, p 1) of the cookie's key (wire/psk.h) and the salt, which is
 * random. To guess a cookie by it costs thousands of times what it costs by a TLS handshake of a node.
 *
 * The first node makes the key. A node has the cluster's cookie when one of its keys fits. When that is not
 * the first of them, as while a cluster changes its cookie, the node puts the seal of its first one there.
 * I/O thread only. */
#ifndef AGENT_CLUSTER_SEAL_H
#define AGENT_CLUSTER_SEAL_H

#include "agent/cluster/etcd.h"
#include "wire/psk.h"

struct seal;

/* Runs once, later than seal_check has returned.  e: NULL; ERR_COOKIE: the cluster has another cookie;
 * ERR_USAGE: the prefix has keys of somebody else; or an error of etcd_done. */
typedef void seal_done(void *data, const struct error *e);

/* The client is borrowed; the rest is copied.  NULL: out of memory, or the client takes no requests. */
struct seal *seal_check(uv_loop_t *loop, struct etcd *etcd, const char *prefix, const struct psk_set *psks,
                        seal_done *done, void *data);
/* done does not run; for use before etcd_finish.  Accepts NULL. */
void seal_cancel(struct seal *s);

#endif
