/* hello: who a node is and where it can be reached: the body of the offer of a link, and the first line of
 * each stream: {"hello": {"node", "creation", "version", "lua", "address", "port", "mesh", "members"}}. */
#ifndef AGENT_MESH_HELLO_H
#define AGENT_MESH_HELLO_H

#include "agent/mesh/mesh.h"
#include "core/nodename.h"

#include <jansson.h>

enum { LINK_VERSION = 2 };

struct hello {
  struct nodename name;
  uint32_t creation;
  const char *address; /* where it listens */
  uint16_t port;
  bool mesh;
  const json_t *members; /* names of the nodes it is connected to */
};

/* Ours: a new reference; members is consumed. NULL when memory ran out. */
json_t *hello_write(const struct mesh_config *us, json_t *members);

/* Theirs: out points into v. ERR_USAGE, ERR_VERSION, ERR_BAD_NODE, ERR_NAME (it is our own name). */
int hello_read(const struct mesh_config *us, json_t *v, struct hello *out, struct error *e) MUST_CHECK;

/* Where a node that came from the address `source` can be reached: ERR_TCP when it listens on its loopback
 * only and is not on this host. */
int hello_address(const struct hello *h, const char *source, char *out, size_t size,
                  struct error *e) MUST_CHECK;

#endif
