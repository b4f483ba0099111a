/* npid: the identity of a process or a reference, in 64 bits; and the table of nodes its bits point into.
 *
 *   63      62 … 44         43 … 0
 *   is_ref  incarnation     number
 *
 * `incarnation` indexes the node table: one entry for each (node name, creation) this agent has heard of;
 * entry 0 is this node itself, so a local pid needs no lookup.  A pid compares, hashes and copies as an
 * integer, and a pid of an earlier life of a node differs from one of a later life.  Number 0 is the node's
 * kernel: the system process that answers calls (spawn, names, …) from other processes and nodes.
 *
 * Printed: short `<Node-ID.Number.Creation>`, where Node-ID is 0 for this node and otherwise counts node
 * names in the order in which this agent came to know them; portable `<two@rane.57.3>`. References print as
 * `#Ref<two@rane.9.3>`. */
#ifndef CORE_NPID_H
#define CORE_NPID_H

#include "base/err.h"
#include "core/nodename.h"

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t npid;

enum { NPID_NUMBER_BITS = 44, NPID_INCARNATION_BITS = 19, NPID_TEXT_SIZE = NODENAME_SIZE + 48 };
#define NPID_NONE       ((npid)UINT64_MAX) /* no process: an absent sender, an unset leader */
#define NPID_KERNEL     ((npid)0)          /* this node's own kernel */
#define NPID_NUMBER_MAX ((UINT64_C(1) << NPID_NUMBER_BITS) - 1)

static inline npid npid_make(uint32_t incarnation, uint64_t number) {
  return (uint64_t)incarnation << NPID_NUMBER_BITS | number;
}
static inline uint32_t npid_incarnation(npid p) {
  return (uint32_t)(p >> NPID_NUMBER_BITS) & ((1u << NPID_INCARNATION_BITS) - 1);
}
static inline uint64_t npid_number(npid p) {
  return p & NPID_NUMBER_MAX;
}
static inline bool npid_is_ref(npid p) {
  return p >> 63;
}
static inline npid npid_as_ref(npid p) {
  return p | UINT64_C(1) << 63;
}
static inline bool npid_is_local(npid p) {
  return p != NPID_NONE && npid_incarnation(p) == 0;
}
static inline npid npid_kernel_of(npid p) {
  return npid_make(npid_incarnation(p), 0);
}

/* The table of nodes.  Entries are only ever added, so what a reader got stays valid until nodetab_free.
 * Adding takes a lock, reading does not.  Any thread. */
struct nodetab;

enum { NODETAB_MAX = 1 << NPID_INCARNATION_BITS };

/* A table whose entry 0 is this node. NULL when memory ran out. */
struct nodetab *nodetab_new(const char *self, uint32_t creation);
void nodetab_free(struct nodetab *t);

/* The entry for (name, creation), added when new.  0, ERR_BUSY when the table is full, ERR_NOMEM. */
int nodetab_intern(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out) MUST_CHECK;

/* Name, creation and Node-ID of an entry (incarnation < what intern gave out). */
const char *nodetab_name(const struct nodetab *t, uint32_t incarnation);
uint32_t nodetab_creation(const struct nodetab *t, uint32_t incarnation);
uint32_t nodetab_node_id(const struct nodetab *t, uint32_t incarnation);

/* The connection to a node, by number: what is sent over one never goes out over the next, and what is tied
 * across one goes with it.  From 1; 0 for this node itself, to which there is none, and for none in
 * particular.  nodetab_part ends the present one and returns its number; by who owns the link. */
uint32_t nodetab_epoch(const struct nodetab *t, uint32_t incarnation);
uint32_t nodetab_part(struct nodetab *t, uint32_t incarnation);

/* Is the way to a node full? Senders then wait.  Set by who owns its link, read by all. */
void nodetab_set_busy(struct nodetab *t, uint32_t incarnation, bool busy);
bool nodetab_busy(const struct nodetab *t, uint32_t incarnation);

enum npid_style { NPID_SHORT, NPID_FULL, NPID_BARE /* portable without <>, as in JSON */ };

/* Writes the printed form, NUL-terminated, into out and returns out. NPID_NONE prints as "<none>". */
char *npid_format(const struct nodetab *t, npid p, enum npid_style style, char out[NPID_TEXT_SIZE]);

/* Reads either form, with or without <>.  A short form must name a Node-ID and a creation in the table
 * (ERR_NO_PROCESS otherwise: such a pid is stale); the portable form adds its node.  ERR_BAD_PID when it is
 * not shaped like a pid, ERR_BUSY when the table is full. */
int npid_parse(struct nodetab *t, const char *text, npid *out, struct error *e) MUST_CHECK;

/* Is the text shaped like a pid (either form)? So that a word can be told from a name. */
bool npid_shaped(const char *text);

#endif
