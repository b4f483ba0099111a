/* nodename: the name of a node, `name@host`.
 *
 * name: [A-Za-z0-9_-]{1,64}.  host: a host name, an IPv4 address, or an IPv6 address in brackets; at most 253
 * bytes. A port may follow, as in `two@rane:4371`: a hint where the node listens, which is not part of the
 * name.
 *
 * A host is compared without case, and an IPv6 address as an address. nodename_parse is the one place that
 * knows this: it writes the host in lower case, and the address as inet_ntop(3) does. All other code compares
 * names that come from nodename_parse, byte by byte. */
#ifndef CORE_NODENAME_H
#define CORE_NODENAME_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A node that was given no port listens on one of these ports; a node whose name has no hint is looked for on
 * them. */
enum { NODE_PORT_FIRST = 4370, NODE_PORT_LAST = 4385 };

enum { NODE_NAME_MAX = 64, NODE_HOST_MAX = 253, NODENAME_SIZE = NODE_NAME_MAX + 1 + NODE_HOST_MAX + 2 };

struct nodename {
  char full[NODENAME_SIZE];     /* "two@rane", in its only spelling */
  char host[NODE_HOST_MAX + 3]; /* "rane", "10.0.0.5", "[::1]" */
  uint16_t port;                /* the hint, or 0 */
};

/* Reads text into *out.  ERR_BAD_NODE: *e quotes the text and says what is wrong with it. */
int nodename_parse(const char *text, struct nodename *out, struct error *e) MUST_CHECK;

/* Reads what stands behind the '@' of a node name, HOST or HOST:PORT, into host and port of *out, whose name
 * is then empty.  Returns NULL, or what is wrong with the text. */
const char *nodename_place(const char *text, struct nodename *out) MUST_CHECK;

/* Does the text, whatever its spelling and its hint, name the node of that full name, which nodename_parse
 * has written? */
bool nodename_means(const char *text, const char *full);

/* Can a node have this name before the '@'?  0 or ERR_BAD_NODE. */
int nodename_check_short(const char *text, struct error *e) MUST_CHECK;

#endif
