/* hello: who a node is and where it listens: the body of an offer, and the first line of each stream,
 * {"hello": {"node", "creation", "life", "version", "lua", "address", "port", "mesh", "tags", "via", "met",
 * "demand"}}; a hello without "tags" or "via" (core/relays.h) has none.  "demand" is [NUMBER, DORMANT], when
 * the node links on demand (ondemand.h): how many hellos it has written to the receiver, this one included,
 * and whether the connection to the receiver is dormant.  "met" is [CREATION, LIFE], the incarnation of the
 * receiver that the sender has met last; it is missing where the sender has met none.  Any thread. */
#ifndef AGENT_MESH_HELLO_H
#define AGENT_MESH_HELLO_H

#include "agent/mesh/mesh.h"
#include "core/nodename.h"

#include <jansson.h>

struct hello {
  struct nodename name;
  uint32_t creation;
  uint64_t life; /* a random number of the OS process: two nodes of one name and creation differ by it */
  /* The address on which the node listens; "0.0.0.0" and "::" stand for all addresses of its host. */
  const char *address;
  uint16_t port;    /* 0: the node cannot be connected to */
  bool mesh;        /* the node connects to the members of its peers */
  const char *tags; /* checked text (core/tags.h) */
  const char *via; /* checked text (core/relays.h): the relays through which the node can be reached; or "" */
  uint32_t met;    /* "met"; 0: it is missing */
  uint64_t met_life;
  bool on_demand, dormant; /* "demand" is there, and its values */
  int64_t number;
};

/* The hello of this node to the node `to`, without "demand": a new reference.  NULL when memory ran out. */
json_t *hello_write(const struct mesh_config *us, uint64_t life, const char *to);

/* Reads the hello of a peer; out points into v.  ERR_USAGE (it is not understood, or one of the two nodes
 * links on demand and the other does not), ERR_VERSION (another PSK_LINK_VERSION or another Lua, whatever
 * else the hello has), ERR_BAD_NODE, ERR_NAME (it has this node's own name). */
int hello_read(const struct mesh_config *us, json_t *v, struct hello *out, struct error *e) MUST_CHECK;

/* True when an address, as text or as the host of a URL, is on loopback. */
bool hello_is_loopback(const char *address);

/* Writes the host part of a URL at which a peer can be reached; its hello came from the address `source`.
 * ERR_TCP when the peer listens on loopback only, and is on another host. */
int hello_address(const struct hello *h, const char *source, char *out, size_t size,
                  struct error *e) MUST_CHECK;

#endif
