/* claims: the global names that each node claims for its own processes, and the union of these claims.
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
#ifndef AGENT_REGISTRY_CLAIMS_H
#define AGENT_REGISTRY_CLAIMS_H

#include "base/map.h"
#include "base/ring.h"
#include "core/names.h"
#include "core/npid.h"

struct home {
  uint32_t incarnation;
  const char *node; /* name@host; borrowed */
  struct claim *claims;
  /* The version of the claims of this home: two nodes that know the same claims of a home have the same count
   * and sum, in whatever order the claims arrived. */
  size_t count;
  uint64_t sum;
  bool gone; /* claims_hide */
};

struct claim_terms { /* what a claim says */
  npid pid;
  uint64_t token;
  /* Decides between two homes; equal to the token, unless the registration replaced another by force. */
  uint64_t age;
  uint64_t over; /* the token of the registration that this one replaced by force; 0: none */
};

struct claim {
  struct home *home;
  struct claim *next, **pprev; /* the other claims of the home */
  struct claim *rival;         /* the next claim of the name by precedence */
  struct ring twins;           /* the other claims for the same process; kept by the owner of the table */
  struct claim_terms terms;
  uint32_t mark; /* kept by the owner of the table: the last snapshot that had the claim */
  char name[];
};

struct claims {
  struct map by_name; /* name → the claim that takes precedence */
  struct names *globals;
};

void claims_finish(struct claims *t); /* frees the claims of all homes */

/* claims_best: the claim of a name that takes precedence. claims_of: the claim of one home for a name. NULL:
 * none. */
struct claim *claims_best(const struct claims *t, const char *name);
struct claim *claims_of(const struct claims *t, const struct home *h, const char *name);

/* True when a takes precedence over b. */
bool claim_precedes(const struct claim *a, const struct claim *b);

/* Makes or changes the claim of a home for a name, and returns it; NULL: out of memory, and nothing has
 * changed.  The list of twins is left alone: a claim that goes to another process must not be in one. */
struct claim *claims_put(struct claims *t, struct home *h, const char *name, const struct claim_terms *terms);

/* Hides all claims of a home at once: from now on no function finds them, nor does a reader of `globals`.
 * Their owner then removes them, one by one; a claim of another home for one of these names is shown once the
 * hidden claim is removed, or once a new claim for the name is made.  The home stays valid until its last
 * claim has gone. */
void claims_hide(struct claims *t, struct home *h);

/* Removes a claim, also from its list of twins, and frees it. */
void claims_remove(struct claims *t, struct claim *c);

#endif
