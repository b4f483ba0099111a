/* npid: a pid or a reference in 64 bits, and the table of nodes.  Part of the bits is an index into that
 * table.
 *
 *   63      62 … 44         43 … 0
 *   is_ref  incarnation     number
 *
 * `incarnation` is an index into the node table, which has an entry for each pair (node name, creation) that
 * this agent has heard of.  Entry 0 is this node, so a local pid needs no lookup.  Pids are compared, hashed
 * and copied as integers; the pids of a node before and after its restart differ (core/creation.c).  Number 0
 * is the node's kernel: the system process that answers calls (spawn, names, …) of other processes and nodes.
 *
 * As text, a pid is short, `<Node-ID.Number.Creation>`, or portable, `<two@rane.57.3>`.  The Node-ID is 0 for
 * this node; other node names have 1, 2, … in the order in which this agent came to know them.  A reference
 * is printed as `#Ref<two@rane.9.3>`. */
#ifndef CORE_NPID_H
#define CORE_NPID_H

#include "base/err.h"
#include "core/limits.h"
#include "core/nodename.h"

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t npid;

enum { NPID_NUMBER_BITS = 44, NPID_INCARNATION_BITS = 19, NPID_TEXT_SIZE = NODENAME_SIZE + 48 };
#define NPID_NONE       ((npid)UINT64_MAX) /* no process: no sender, no leader */
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

/* The table of nodes.  Entries are added and never removed, so a result stays valid until nodetab_free, and
 * an index never comes to mean another node: pids with the index may be anywhere, in messages, tables and
 * functions.  Any thread: adding takes a lock, reading does not.
 *
 * This agent has *heard of* a node when somebody has sent a pid of that node, and has *met* the node once it
 * has connected.  Anybody can make up pids, so nodes that were heard of and not met have a bound of their
 * own, LIMIT_FOREIGN; the rest of the table is for nodes that were met.  A node that is met no longer
 * counts as heard of. */
struct metrics;
struct nodetab;

enum {
  NODETAB_MAX = 1 << NPID_INCARNATION_BITS,
  /* Stands for each node for which there was no room.  No entry has this index, so its name is nonode@nohost
   * with the creation 0; nothing can be sent to its pids. */
  NODETAB_NOWHERE = NODETAB_MAX - 2
};

/* A table whose entry 0 is this node; NULL when memory ran out. */
struct nodetab *nodetab_new(const char *self, uint32_t creation);

/* Gives this node another creation.  The pids of the old one are then those of an earlier incarnation of this
 * node, while index 0 stays this node.  ERR_BUSY, ERR_NOMEM: nothing has changed. */
int nodetab_renew(struct nodetab *t, uint32_t creation) MUST_CHECK;
void nodetab_free(struct nodetab *t);

/* Gives the table its bound (borrowed); without it, it has the default.  Before other threads use the table.
 */
void nodetab_bound(struct nodetab *t, struct limits *limits);
int64_t nodetab_heard_max(const struct nodetab *t);

/* Stores the index of the entry for (name, creation) in *out, and adds the entry when it is new.  ERR_BUSY:
 * there is no room: for one more node that is heard of, or in the whole table.  ERR_NOMEM. */
int nodetab_intern(struct nodetab *t, const char *name, uint32_t creation, uint32_t *out) MUST_CHECK;

/* The same for a node that is met; `life` is the random number of its incarnation.  ERR_NODE_TAKEN: the
 * creation has been met with another number, or with another number than the last one that was met and is not
 * newer than that, so it cannot be told from an earlier start of the node.  A pair that has been met is met
 * again with the same number. */
int nodetab_meet(struct nodetab *t, const char *name, uint32_t creation, uint64_t life,
                 uint32_t *out) MUST_CHECK;

/* The last incarnation of a node that was met; false, with the outputs unchanged, when none was. */
bool nodetab_last_met(struct nodetab *t, const char *name, uint32_t *creation, uint64_t *life);

/* How many nodes were heard of and not met; and how often an entry was refused because there was no room. */
uint32_t nodetab_heard(const struct nodetab *t);
uint64_t nodetab_refused(const struct nodetab *t);
void nodetab_metrics(const struct nodetab *t, struct metrics *out);

/* Name, creation and Node-ID of an entry; "nonode@nohost", 0 and UINT32_MAX for an index without an entry. */
const char *nodetab_name(const struct nodetab *t, uint32_t incarnation);
uint32_t nodetab_creation(const struct nodetab *t, uint32_t incarnation);
uint32_t nodetab_node_id(const struct nodetab *t, uint32_t incarnation);

/* The number of the present connection to a node, from 1 on; 0 for this node itself.  A signal that was sent
 * for one connection is not sent over the next, and links and monitors between the nodes end with the
 * connection. nodetab_part ends the present connection and returns its number; only the mesh calls it. */
uint32_t nodetab_epoch(const struct nodetab *t, uint32_t incarnation);
uint32_t nodetab_part(struct nodetab *t, uint32_t incarnation);

/* Is the queue of the connection to a node full?  Senders then suspend.  The mesh sets it, senders read it.
 */
void nodetab_set_busy(struct nodetab *t, uint32_t incarnation, bool busy);
bool nodetab_busy(const struct nodetab *t, uint32_t incarnation);

/* Is a node linked, and are its members as well (mesh_connect would be done at once)?  The mesh sets it.  The
 * incarnation of the node of that full name that is so; false: none is. */
void nodetab_set_up(struct nodetab *t, uint32_t incarnation, bool up);
bool nodetab_find_up(struct nodetab *t, const char *name, uint32_t *out);

enum npid_style { NPID_SHORT, NPID_FULL, NPID_BARE /* portable without <>, as in JSON */ };

/* Writes the text of a pid or reference into out, NUL-terminated, and returns out.  NPID_NONE is "<none>". */
char *npid_format(const struct nodetab *t, npid p, enum npid_style style, char out[NPID_TEXT_SIZE]);

/* Reads either form of a pid, with or without <>.  ERR_BAD_PID: the text is not a pid.  ERR_NO_PROCESS: the
 * Node-ID and creation of a short form are not in the table, so the pid is stale.  A portable form adds its
 * node to the table: ERR_BUSY when there is no room for it, ERR_NOMEM. */
int npid_parse(struct nodetab *t, const char *text, npid *out, struct error *e) MUST_CHECK;

/* As npid_parse, for a pid in a message of another node.  The message must not be lost, so a pid whose node
 * has no room in the table becomes a pid of NODETAB_NOWHERE. */
int npid_parse_foreign(struct nodetab *t, const char *text, npid *out, struct error *e) MUST_CHECK;

/* As npid_parse, but does not add a node: ERR_NO_PROCESS when the pid's node is not in the table. */
int npid_parse_known(struct nodetab *t, const char *text, npid *out, struct error *e) MUST_CHECK;

/* Does the text have the form of a pid, short or portable?  A process name never has this form. */
bool npid_shaped(const char *text);

#endif
