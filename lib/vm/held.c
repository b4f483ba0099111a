/* Invariant: count is the length of pids, and is changed under the lock only. */
#include "vm/held.h"

void held_init(struct held *h) {
  *h = (struct held){.pids = MAP_INIT};
  pthread_mutex_init(&h->lock, NULL);
}

void held_finish(struct held *h) {
  map_finish(&h->pids);
  pthread_mutex_destroy(&h->lock);
}

static void recount(struct held *h) {
  atomic_store_explicit(&h->count, h->pids.len, memory_order_relaxed);
}

void held_put(struct held *h, npid pid, bool held) {
  pthread_mutex_lock(&h->lock);
  if (!held || map_put_id(&h->pids, pid, h)) map_remove_id(&h->pids, pid);
  recount(h);
  pthread_mutex_unlock(&h->lock);
}

bool held_has(struct held *h, npid pid) {
  if (!atomic_load_explicit(&h->count, memory_order_relaxed)) return false;
  pthread_mutex_lock(&h->lock);
  bool has = map_get_id(&h->pids, pid);
  pthread_mutex_unlock(&h->lock);
  return has;
}

static bool find_of(const struct held *h, uint32_t incarnation, uint64_t *out) {
  for (size_t at = 0; map_next(&h->pids, &at, NULL, out, NULL);)
    if (npid_incarnation(*out) == incarnation) return true;
  return false;
}

void held_drop_node(struct held *h, uint32_t incarnation) {
  uint64_t pid;
  pthread_mutex_lock(&h->lock);
  while (find_of(h, incarnation, &pid)) map_remove_id(&h->pids, pid);
  recount(h);
  pthread_mutex_unlock(&h->lock);
}
