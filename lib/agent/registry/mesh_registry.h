/* mesh_registry: the registry of global names (registry.h) of nodes that form a mesh. A name belongs to the
 * *home* of its process, the node that the process runs on, and only that node publishes it. Every node knows
 * the names of the nodes that it has a link to, so whereis only reads the table `globals`.
 *
 * Registering: the node that gets the request asks the home. The home asks the name's *arbiter*, which is the
 * node that ranks highest for the name in rendezvous hashing; the arbiter grants the name with a *token*. The
 * home then publishes the name to its peers, and the registration ends when all of them have acknowledged it.
 * The arbiter is only a lock: a grant is a *lease* of REGISTRY_LEASE_MS, which ends when the home publishes
 * the name, gives it back or is lost. Tokens rise: each is larger than any that the arbiter or the home has
 * seen.
 *
 * The registry does not wait for a peer that does not answer within REGISTRY_PATIENCE_MS or that the mesh
 * suspects: the node next in rank arbitrates, and a registration ends without the peer's acknowledgement. The
 * peer still gets the changes, in order, over its link. The waits for several such peers overlap: a
 * registration that has no grant after REGISTRY_PROBE_MS has every peer acknowledge a round without changes,
 * so that all that do not answer are known REGISTRY_PATIENCE_MS later.
 *
 * When two claims of one name meet, the older registration stays (claims.h); the home of the other withdraws
 * it and sends its process ("name_conflict", name, winner).
 *
 * The registry calls its node through a table of functions, so that it runs in a unit test without a vm. I/O
 * thread only. */
#ifndef AGENT_REGISTRY_MESH_REGISTRY_H
#define AGENT_REGISTRY_MESH_REGISTRY_H

#include "agent/registry/forward.h"
#include "base/log.h"
#include "core/names.h"
#include "core/term.h"

#include <jansson.h>
#include <uv.h>

enum {
  REGISTRY_SLICE = 500, /* names in one part of a snapshot; a part takes half a millisecond */
  REGISTRY_PATIENCE_MS = 800,
  REGISTRY_PROBE_MS = 100, /* after so long without a grant, all peers are asked whether they answer */
  REGISTRY_LEASE_MS = 2 * REGISTRY_PATIENCE_MS,
  REGISTRY_TIMEOUT_MS = 5000, /* bound on a whole registration */
};

struct holds_loop;
struct mesh_registry;

/* What the registry needs of its node. */
struct registry_host {
  bool (*alive)(void *data, npid pid);
  /* Arranges that registry_down of registry.h is called once for this process of this node: when it ends, or
   * soon when it has ended already. */
  MUST_CHECK int (*watch)(void *data, npid pid);
  /* Sends a message (borrowed; NULL: out of memory) to a process of this node. */
  void (*tell)(void *data, npid pid, struct term *message);
  /* Sends [op, …] (consumed) to the registry of a node with a link, without a reply. When sending loses the
   * link, mesh_registry_link_down runs before the function returns. */
  void (*cast)(void *data, uint32_t node, struct term *args);
  /* Sends the next part of the snapshot (consumed; NULL: out of memory). May lose the link as `cast` may. */
  void (*more)(void *data, uint32_t node, json_t *snapshot);
  registry_call *call;
  int64_t (*now_ms)(void *data);  /* a monotonic clock */
  int64_t (*wall_us)(void *data); /* the wall clock, since 1970; it may jump */
};

/* Copied; the objects that it points at are borrowed. */
struct registry_config {
  const struct nodetab *nodes;
  struct names *globals; /* the registry alone changes it */
  const struct log *log;
  struct limits *limits;    /* or NULL */
  struct holds_loop *holds; /* what the loop does (holds_note); or NULL */
  const char *self;         /* name@host */
  uv_loop_t *loop;          /* NULL: the caller calls mesh_registry_flush, _slice and _tick itself */
  uint32_t slice;           /* names in one part of a snapshot; 0: REGISTRY_SLICE */
};

int mesh_registry_new(const struct registry_config *config, const struct registry_host *host, void *data,
                      struct mesh_registry **out) MUST_CHECK;
/* What it does for all of the node, by the functions of registry.h; registry_finish ends both.  With a loop,
 * the memory is freed when the loop runs next. */
struct registry *mesh_registry_base(struct mesh_registry *g);

/* --- links ---------------------------------------------------------------------------------------------- */

/* Begins a link to a node. Returns the first part of the snapshot of this node's names (NULL: out of memory),
 * which must be sent to the peer before anything else. The registry casts to the node from now on. */
json_t *mesh_registry_link_begin(struct mesh_registry *g, uint32_t node);

/* Reads a part of the peer's snapshot (borrowed). True when it was the last part: this node then knows all
 * names of the peer. */
bool mesh_registry_link_synced(struct mesh_registry *g, uint32_t node, const json_t *snapshot);

/* Ends a link, and hides the names that came over it, which are then removed in slices (mesh_registry_slice).
 */
void mesh_registry_link_down(struct mesh_registry *g, uint32_t node);

/* Tells the registry whether the node is suspected to be frozen or cut off. Registrations do not wait for a
 * suspected node. */
void mesh_registry_link_suspect(struct mesh_registry *g, uint32_t node, bool suspected);

/* Handles a cast of a peer's registry: the values behind the word "names". */
void mesh_registry_heard(struct mesh_registry *g, uint32_t node, struct term_reader args);

/* mesh_registry_version: the version of this node's names, for a heartbeat, which must be sent before any
 * later line; NULL: out of memory. mesh_registry_version_heard: compares the version (borrowed) of a peer
 * with the version of the peer's names that this node knows, and asks the peer for all of its names when the
 * two differ. */
json_t *mesh_registry_version(struct mesh_registry *g);
void mesh_registry_version_heard(struct mesh_registry *g, uint32_t node, const json_t *version);

/* --- time ----------------------------------------------------------------------------------------------- */

/* Sends the changes, requests and grants since the last flush, one line for each peer, and runs the callbacks
 * of registrations that have ended. False when there was nothing to do. */
bool mesh_registry_flush(struct mesh_registry *g);

/* Sends one further part of each snapshot that is not yet sent as a whole, and removes a part of what lost
 * links have left, and of what peers do not have any more, so that the loop does other work between parts.
 * False when there was nothing to do. */
bool mesh_registry_slice(struct mesh_registry *g);

/* Ends waits and leases whose time is over. To be called every REGISTRY_TICK_MS. */
enum { REGISTRY_TICK_MS = 20 };
void mesh_registry_tick(struct mesh_registry *g);

#endif
