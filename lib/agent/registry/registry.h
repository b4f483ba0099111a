/* registry: the global names of a cluster, as the rest of the node sees them.  Which registry a node has is
 * chosen when the node starts: mesh_registry.h, in which the nodes of a mesh agree among themselves, or one
 * on a store.  Each is a struct that begins with a `struct registry`, and a table of functions.
 *
 * The table `globals` (core/names.h) of the node has what can be answered at once, and whereis reads it
 * first. I/O thread only. */
#ifndef AGENT_REGISTRY_REGISTRY_H
#define AGENT_REGISTRY_REGISTRY_H

#include "base/err.h"
#include "core/npid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics;
struct registry;

/* Runs exactly once, maybe before the call returns. With e NULL, yes is true when the name was registered or
 * removed, and false when the name is taken (register) or no process has it (unregister). token is the token
 * of the registration. */
typedef void registry_done(void *data, const struct error *e, bool yes, uint64_t token);

/* Registers a name for a process of any node. With force, a process that has the name loses it. When the
 * process itself has the name already, the outcome is yes with its present token. ERR_NO_PROCESS: the
 * process has ended, or its node is not connected. ERR_BUSY: LIMIT_GLOBAL_NAMES or LIMIT_REGISTRATIONS.
 * ERR_TIMEOUT. */
void registry_register(struct registry *g, const char *name, npid pid, bool force, registry_done *done,
                       void *data);

/* Removes a name, whichever node's process has it. */
void registry_unregister(struct registry *g, const char *name, registry_done *done, void *data);

/* Removes a registration of a process of this node, if it has that token. Serves the call ["name_unregister",
 * name, token] of another node. */
void registry_unregister_own(struct registry *g, const char *name, uint64_t token, registry_done *done,
                             void *data);

/* Removes the names of a watched process, which has ended, and ends its registrations with ERR_NO_PROCESS. */
void registry_down(struct registry *g, npid pid);

/* Runs exactly once, maybe before the call returns.  With e NULL, pid is the process that has the name, or
 * NPID_NONE, and token the token of the registration.  stale: the answer may be old, as what the registry
 * stands on does not answer. */
typedef void registry_found(void *data, const struct error *e, npid pid, uint64_t token, bool stale);

/* Finds the process that has a name: in the table `globals`, or, where the table does not have all names of
 * the cluster (registry_asks), by asking. */
void registry_whereis(struct registry *g, const char *name, registry_found *found, void *data);
bool registry_asks(const struct registry *g);

/* Ends the registrations and look-ups under way with ERR_LOST, and frees the registry.  Accepts NULL. */
void registry_finish(struct registry *g);

struct registry_counts {
  size_t known; /* global names of all nodes */
  size_t names, pending, leases;
  uint64_t highest; /* the largest token seen */
  uint64_t registered, conflicts, resyncs;
};
struct registry_counts registry_counts(const struct registry *g);
void registry_metrics(const struct registry *g, struct metrics *out);

/* --- a kind of registry --------------------------------------------------------------------------------- */

/* The functions above, of one kind of registry. */
struct registry_class {
  void (*enter)(struct registry *g, const char *name, npid pid, bool force, registry_done *done, void *data);
  void (*remove)(struct registry *g, const char *name, registry_done *done, void *data);
  void (*remove_own)(struct registry *g, const char *name, uint64_t token, registry_done *done, void *data);
  void (*down)(struct registry *g, npid pid);
  void (*whereis)(struct registry *g, const char *name, registry_found *found, void *data);
  bool asks; /* registry_asks */
  struct registry_counts (*counts)(const struct registry *g);
  void (*metrics)(const struct registry *g, struct metrics *out);
  void (*finish)(struct registry *g);
};

struct registry {
  const struct registry_class *class;
};

/* The metrics of a registry that has no others than its counts. */
void registry_put_counts(const struct registry *g, struct metrics *out);

#endif
