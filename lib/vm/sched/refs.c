/* Invariant: `next` only grows.  A number is the low bits of `next`.  A batch that would begin with 0, or go
 * beyond NPID_NUMBER_MAX into the bits of the incarnation, is skipped, and the next one taken. */
#include "vm/sched/refs.h"

void refs_init(struct refs *r) {
  *r = (struct refs){.next = 1};
  for (int i = 0; i < REFS_SHARDS; i++) pthread_mutex_init(&r->shards[i].lock, NULL);
}

void refs_finish(struct refs *r) {
  for (int i = 0; i < REFS_SHARDS; i++) {
    map_finish(&r->shards[i].owners);
    pthread_mutex_destroy(&r->shards[i].lock);
  }
}

uint64_t refs_take(struct refs *r, uint32_t n) {
  for (;;) {
    uint64_t first = atomic_fetch_add(&r->next, n) & NPID_NUMBER_MAX;
    if (first != 0 && first <= NPID_NUMBER_MAX - n + 1) return first;
  }
}

static struct refs_shard *shard_of(struct refs *r, npid ref) {
  return &r->shards[npid_number(ref) % REFS_SHARDS];
}

int refs_claim(struct refs *r, npid ref, struct runnable *owner) {
  struct refs_shard *shard = shard_of(r, ref);
  pthread_mutex_lock(&shard->lock);
  int rc = map_put_id(&shard->owners, ref, owner);
  pthread_mutex_unlock(&shard->lock);
  return rc;
}

void refs_release(struct refs *r, npid ref) {
  struct refs_shard *shard = shard_of(r, ref);
  pthread_mutex_lock(&shard->lock);
  map_remove_id(&shard->owners, ref);
  pthread_mutex_unlock(&shard->lock);
}

struct runnable *refs_owner(struct refs *r, npid ref) {
  if (!npid_is_local(ref)) return NULL;
  struct refs_shard *shard = shard_of(r, ref);
  pthread_mutex_lock(&shard->lock);
  struct runnable *owner = map_get_id(&shard->owners, ref);
  pthread_mutex_unlock(&shard->lock);
  return owner;
}
