/* Invariant: a wait is in the ring of its key until waits_leave, or until waits_end moves the ring to
 * `ending`, because the key has room; there until waits_leave, or until it is told.  The signal is allocated
 * with the wait, so that nothing can run out of memory as it is told; it is NULL from then on.  A key has a
 * ring exactly while waits are in it.  While waits are in `ending`, there is one that was told and has not
 * left: so one that leaves is always to come, and tells others.  count and for_inbox count the waits that are
 * in rings, held_count is the length of held; all of them change only under the lock. */
#include "vm/sched/waits.h"

#include <stdlib.h>

struct room_wait {
  struct ring ring;
  struct signal *signal;
  npid key;
};

/* The waits for a key, oldest first. */
struct key_waits {
  struct ring ring;
  npid key;
};

void waits_init(struct waits *w) {
  *w = (struct waits){.held = MAP_INIT, .by_key = MAP_INIT};
  ring_init(&w->ending);
  pthread_mutex_init(&w->lock, NULL);
}

void waits_finish(struct waits *w) {
  map_finish(&w->held);
  map_finish(&w->by_key);
  pthread_mutex_destroy(&w->lock);
}

npid waits_key_of_inbox(const struct inbox *in) {
  return npid_as_ref((npid)(uintptr_t)in);
}

/* --- waiting --- */

/* The ring of a key, which is made where there is none; NULL when memory ran out.  Called under the lock, as
 * are the following functions. */
static struct key_waits *ring_of(struct waits *w, npid key) {
  struct key_waits *k = map_get_id(&w->by_key, key);
  if (k || !(k = malloc(sizeof *k))) return k;
  ring_init(&k->ring);
  k->key = key;
  if (!map_put_id(&w->by_key, key, k)) return k;
  free(k);
  return NULL;
}

static void drop_ring(struct waits *w, struct key_waits *k) {
  map_remove_id(&w->by_key, k->key);
  free(k);
}

static int insert_wait(struct waits *w, struct room_wait *wait) {
  struct key_waits *k = ring_of(w, wait->key);
  if (!k) return ERR_NOMEM;
  ring_push(&k->ring, &wait->ring);
  atomic_fetch_add(&w->count, 1);
  if (npid_is_ref(wait->key)) atomic_fetch_add(&w->for_inbox, 1);
  return 0;
}

static void remove_wait(struct waits *w, struct room_wait *wait) {
  struct ring *next = wait->ring.next;
  ring_out(&wait->ring);
  if (ring_empty(next) && next != &w->ending) /* it was the last one */
    drop_ring(w, RING_ENTRY(next, struct key_waits, ring));
  atomic_fetch_sub(&w->count, 1);
  if (npid_is_ref(wait->key)) atomic_fetch_sub(&w->for_inbox, 1);
}

/* Takes the signals of up to max of the waits that are to be told, oldest first. */
static struct signal *take_told(struct waits *w, int max) {
  struct signal *told = NULL, **end = &told;
  for (struct ring *r; max > 0 && (r = ring_first(&w->ending)); max--) {
    struct room_wait *wait = RING_ENTRY(r, struct room_wait, ring);
    remove_wait(w, wait);
    *end = wait->signal;
    wait->signal = NULL;
    (*end)->next = NULL;
    end = &(*end)->next;
  }
  return told;
}

struct room_wait *waits_enter(struct waits *w, npid key, npid to, npid who) {
  struct room_wait *wait = calloc(1, sizeof *wait);
  if (!wait) return NULL;
  wait->key = key;
  wait->signal = signal_new(SIGNAL_ROOM, who, to, NPID_NONE, NULL);
  pthread_mutex_lock(&w->lock);
  int code = wait->signal ? insert_wait(w, wait) : ERR_NOMEM;
  pthread_mutex_unlock(&w->lock);
  if (!code) return wait;
  signal_free(wait->signal);
  free(wait);
  return NULL;
}

struct signal *waits_leave(struct waits *w, struct room_wait *wait) {
  struct signal *told = NULL;
  if (!wait) return NULL;
  pthread_mutex_lock(&w->lock);
  if (wait->signal)
    remove_wait(w, wait);
  else
    told = take_told(w, WAITS_EACH);
  pthread_mutex_unlock(&w->lock);
  signal_free(wait->signal);
  free(wait);
  return told;
}

struct signal *waits_end(struct waits *w, npid key) {
  if (!atomic_load(&w->count)) return NULL;
  pthread_mutex_lock(&w->lock);
  struct key_waits *k = map_get_id(&w->by_key, key);
  if (k) {
    ring_move_all(&k->ring, &w->ending);
    drop_ring(w, k);
  }
  struct signal *told = take_told(w, WAITS_AT_ONCE);
  pthread_mutex_unlock(&w->lock);
  return told;
}

/* --- processes of other nodes --- */

/* The value in held: the epoch, plus 1, as it may be 0. */
static void *as_value(uint32_t epoch) {
  return (void *)((uintptr_t)epoch + 1);
}

void waits_hold(struct waits *w, npid pid, bool held, uint32_t epoch) {
  pthread_mutex_lock(&w->lock);
  if (!held || map_put_id(&w->held, pid, as_value(epoch))) map_remove_id(&w->held, pid);
  atomic_store(&w->held_count, w->held.len);
  pthread_mutex_unlock(&w->lock);
}

bool waits_held(struct waits *w, npid pid) {
  if (!atomic_load(&w->held_count)) return false;
  pthread_mutex_lock(&w->lock);
  bool has = map_get_id(&w->held, pid);
  pthread_mutex_unlock(&w->lock);
  return has;
}

size_t waits_held_of(struct waits *w, uint32_t incarnation, uint32_t epoch, npid *out, size_t max) {
  size_t n = 0;
  uint64_t pid;
  void *value;
  pthread_mutex_lock(&w->lock);
  for (size_t at = 0; n < max && map_next(&w->held, &at, NULL, &pid, &value);)
    if (npid_incarnation(pid) == incarnation && (uintptr_t)value <= (uintptr_t)as_value(epoch))
      out[n++] = pid;
  pthread_mutex_unlock(&w->lock);
  return n;
}
