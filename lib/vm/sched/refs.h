/* refs: makes references of this node, and knows which runnable keeps the alarms and aliases of a reference.
 * Any thread.
 *
 * References are made in blocks of REFS_BLOCK numbers, each for one runnable, which claims a block while some
 * of its references are addresses: alarms or aliases.  So making such an address takes no lock. */
#ifndef VM_SCHED_REFS_H
#define VM_SCHED_REFS_H

#include "base/err.h"
#include "base/map.h"
#include "core/npid.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct runnable;

enum { REFS_SHARDS = 16, REFS_BLOCK = 1024 };

struct refs {
  atomic_uint_fast64_t blocks;  /* the next block is its low bits */
  atomic_uint_fast64_t singles; /* counts the references that refs_take_one has made */
  struct refs_shard {
    pthread_mutex_t lock;
    struct map owners;   /* block -> runnable */
  } shards[REFS_SHARDS]; /* by block */
};

void refs_init(struct refs *r);
void refs_finish(struct refs *r);

/* Takes a block of REFS_BLOCK numbers, and returns the first of them; or one number of a block that belongs
 * to no runnable.  None is 0.  After NPID_NUMBER_MAX the numbers begin again: at a million references a
 * second a number comes again after 100 days. */
uint64_t refs_take(struct refs *r);
uint64_t refs_take_one(struct refs *r);

static inline uint64_t refs_block(npid ref) {
  return npid_number(ref) / REFS_BLOCK;
}

/* refs_claim notes which runnable owns a block, so that signals to its references go there; refs_release
 * forgets this.  Runnables live as long as the vm. */
int refs_claim(struct refs *r, uint64_t block, struct runnable *owner) MUST_CHECK; /* 0 or ERR_NOMEM */
void refs_release(struct refs *r, uint64_t block);

/* The runnable that has claimed the block of a local ref, or NULL. */
struct runnable *refs_owner(struct refs *r, npid ref);

#endif
