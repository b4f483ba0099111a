/* refs: makes references of this node, and knows which runnable keeps the alarm of a reference.  Any thread.
 */
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
  atomic_uint_fast64_t next; /* the next number is its low bits */
  struct refs_shard {
    pthread_mutex_t lock;
    struct map owners;   /* ref -> runnable */
  } shards[REFS_SHARDS]; /* by number: one lock would be contended, as every isolate writes */
};

void refs_init(struct refs *r);
void refs_finish(struct refs *r);

/* Takes n numbers for references (1 to REFS_TAKE_MAX): the returned one and those that follow it.  None is 0.
 * After NPID_NUMBER_MAX the numbers begin again at 1: at a million references a second a number comes again
 * after 200 days. */
uint64_t refs_take(struct refs *r, uint32_t n);

/* refs_claim notes which runnable owns a ref, so that signals to the ref go there; refs_release forgets this.
 * Runnables live as long as the vm. */
int refs_claim(struct refs *r, npid ref, struct runnable *owner) MUST_CHECK; /* 0 or ERR_NOMEM */
void refs_release(struct refs *r, npid ref);

/* The runnable that owns a local ref, or NULL. */
struct runnable *refs_owner(struct refs *r, npid ref);

#endif
