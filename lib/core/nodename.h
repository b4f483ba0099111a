/* nodename: `name@host`, what a node is called.
 *
 * name: [A-Za-z0-9_-]{1,64}.  host: a host name, an IPv4 address, or an IPv6 address in brackets; at most 253
 * bytes.  A name may carry an address hint, `two@rane:4371`, which says where to look and is no part of the
 * name. */
#ifndef CORE_NODENAME_H
#define CORE_NODENAME_H

#include "base/err.h"

#include <stdint.h>

/* Where a node listens that was given no port, and hence where a node is looked for whose name has no hint.
 */
enum { NODE_PORT_FIRST = 4370, NODE_PORT_LAST = 4385 };

enum { NODE_NAME_MAX = 64, NODE_HOST_MAX = 253, NODENAME_SIZE = NODE_NAME_MAX + 1 + NODE_HOST_MAX + 2 };

struct nodename {
  char full[NODENAME_SIZE];     /* "two@rane" */
  char host[NODE_HOST_MAX + 3]; /* "rane", "10.0.0.5", "[::1]" */
  uint16_t port;                /* the hint, or 0 */
};

/* Reads text into *out; on failure ERR_BAD_NODE, with e saying what is wrong with which word. */
int nodename_parse(const char *text, struct nodename *out, struct error *e) MUST_CHECK;

#endif
