/* claims: what each node says of the global names of its own processes, and the union of it.
 *
 * A *claim* says that a process of one node, the claim's *home*, has a name.  Two homes may claim one name
 * while two parts of a cluster meet.  The claim that takes precedence is then the same on every node:
 *
 *   1. the smaller age: the token of the registration, or, where a registration replaced another by force,
 *      the age of the replaced one;
 *   2. at equal age the larger token: the one that replaced the other;
 *   3. at equal tokens the node name that sorts first.
 *
 * The table `globals`, which whereis reads, has for each name the claim that takes precedence.  One owner, no
 * locking (globals has its own lock). */
#ifndef AGENT_KERNEL_CLAIMS_H
#define AGENT_KERNEL_CLAIMS_H

#include "base/map.h"
#include "base/ring.h"
#include "core/names.h"
#include "core/npid.h"

struct home {
  uint32_t incarnation;
  const char *node; /* name@host; borrowed */
  struct claim *claims;
  /* The version of what this home says: equal claims have an equal count and sum, in whatever order they
   * came. */
  size_t count;
  uint64_t sum;
};

struct claim_terms { /* what a claim says */
  npid pid;
  uint64_t token;
  uint64_t age;  /* decides between two homes; the token, unless the registration replaced another by force */
  uint64_t over; /* the token of the registration that this one replaced by force; 0: none */
};

struct claim {
  struct home *home;
  struct claim *next, **pprev; /* of the same home */
  struct claim *rival;         /* of the same name: the next in precedence */
  struct ring twins;           /* of the same process; for the owner of the table */
  struct claim_terms terms;
  uint32_t mark; /* for the owner of the table: the snapshot that has mentioned the claim last */
  char name[];
};

struct claims {
  struct map by_name; /* name → the claim that takes precedence */
  struct names *globals;
};

void claims_finish(struct claims *t); /* frees the claims of all homes */

/* The claim of a name that takes precedence, and the claim of one home; NULL: none. */
struct claim *claims_best(const struct claims *t, const char *name);
struct claim *claims_of(const struct claims *t, const struct home *h, const char *name);

/* Does a take precedence over b? */
bool claim_precedes(const struct claim *a, const struct claim *b);

/* Makes or changes the claim of a home for a name, and returns it; NULL: out of memory, and nothing has
 * changed.  The list of twins is left alone: a claim that goes to another process must not be in one. */
struct claim *claims_put(struct claims *t, struct home *h, const char *name, const struct claim_terms *terms);

/* Removes a claim, also from its list of twins, and frees it. */
void claims_remove(struct claims *t, struct claim *c);

#endif
