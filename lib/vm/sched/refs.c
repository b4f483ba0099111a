/* Invariant: blocks with an even number are for runnables, those with an odd number for refs_take_one; block
 * 0 is never used. */
#include "vm/sched/refs.h"

void refs_init(struct refs *r) {
  *r = (struct refs){.blocks = 1};
  for (int i = 0; i < REFS_SHARDS; i++) pthread_mutex_init(&r->shards[i].lock, NULL);
}

void refs_finish(struct refs *r) {
  for (int i = 0; i < REFS_SHARDS; i++) {
    map_finish(&r->shards[i].owners);
    pthread_mutex_destroy(&r->shards[i].lock);
  }
}

enum { HALF_BITS = NPID_NUMBER_BITS - 1 - 10 }; /* of the number of a block, without its lowest bit */
_Static_assert(1 << 10 == REFS_BLOCK, "a block has 2^10 numbers");

static uint64_t first_of(uint64_t half, uint64_t odd) {
  return ((half & ((UINT64_C(1) << HALF_BITS) - 1)) * 2 + odd) * REFS_BLOCK;
}

uint64_t refs_take(struct refs *r) {
  uint64_t first;
  do first = first_of(atomic_fetch_add(&r->blocks, 1), 0);
  while (first == 0);
  return first;
}

uint64_t refs_take_one(struct refs *r) {
  uint64_t n = atomic_fetch_add(&r->singles, 1);
  return first_of(n / REFS_BLOCK, 1) + n % REFS_BLOCK;
}

static struct refs_shard *shard_of(struct refs *r, uint64_t block) {
  return &r->shards[block / 2 % REFS_SHARDS];
}

int refs_claim(struct refs *r, uint64_t block, struct runnable *owner) {
  struct refs_shard *shard = shard_of(r, block);
  pthread_mutex_lock(&shard->lock);
  int rc = map_put_id(&shard->owners, block, owner);
  pthread_mutex_unlock(&shard->lock);
  return rc;
}

void refs_release(struct refs *r, uint64_t block) {
  struct refs_shard *shard = shard_of(r, block);
  pthread_mutex_lock(&shard->lock);
  map_remove_id(&shard->owners, block);
  pthread_mutex_unlock(&shard->lock);
}

struct runnable *refs_owner(struct refs *r, npid ref) {
  if (!npid_is_local(ref)) return NULL;
  uint64_t block = refs_block(ref);
  struct refs_shard *shard = shard_of(r, block);
  pthread_mutex_lock(&shard->lock);
  struct runnable *owner = map_get_id(&shard->owners, block);
  pthread_mutex_unlock(&shard->lock);
  return owner;
}
