/* refs: fresh references of this node, and which runnable answers for a reference that something is kept
 * under (an alarm).  Any thread. */
#ifndef VM_SCHED_REFS_H
#define VM_SCHED_REFS_H

#include "base/err.h"
#include "base/map.h"
#include "core/npid.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct runnable;

enum { REFS_SHARDS = 16, REFS_TAKE_MAX = 1 << 16 };

struct refs {
  atomic_uint_fast64_t next; /* the next number, before it is cut to what an npid holds */
  struct refs_shard {
    pthread_mutex_t lock;
    struct map owners;   /* ref -> runnable */
  } shards[REFS_SHARDS]; /* by number, as every isolate writes here */
};

void refs_init(struct refs *r);
void refs_finish(struct refs *r);

/* Takes n numbers for references (1 to REFS_TAKE_MAX): the returned one and those that follow it.  None is 0.
 * After NPID_NUMBER_MAX the numbers begin again at 1: at a million references a second a number comes again
 * after 200 days. */
uint64_t refs_take(struct refs *r, uint32_t n);

/* Notes the runnable that answers for a ref, and forgets it.  A runnable stays valid as long as the vm. */
int refs_claim(struct refs *r, npid ref, struct runnable *owner) MUST_CHECK; /* 0 or ERR_NOMEM */
void refs_release(struct refs *r, npid ref);

/* Who answers for a local ref, or NULL. */
struct runnable *refs_owner(struct refs *r, npid ref);

#endif
