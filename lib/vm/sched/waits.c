/* Invariant: a wait is in the list of its key until waits_leave, or until waits_end says that the key has
 * room.  The signal is allocated with the wait, so that waits_end cannot run out of memory; it is NULL once
 * waits_end has returned it.  count and for_inbox count the waits that are in lists, held_count is the length
 * of held; all of them change only under the lock. */
#include "vm/sched/waits.h"

#include <stdlib.h>

struct room_wait {
  struct room_wait *next, *prev; /* waits for the same key, newest first */
  struct signal *signal;
  npid key;
};

void waits_init(struct waits *w) {
  *w = (struct waits){.held = MAP_INIT, .by_key = MAP_INIT};
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

/* Called under the lock, as is remove_wait. */
static int insert_wait(struct waits *w, struct room_wait *wait) {
  struct room_wait *first = map_get_id(&w->by_key, wait->key);
  if (map_put_id(&w->by_key, wait->key, wait)) return ERR_NOMEM;
  wait->next = first;
  if (first) first->prev = wait;
  atomic_fetch_add(&w->count, 1);
  if (npid_is_ref(wait->key)) atomic_fetch_add(&w->for_inbox, 1);
  return 0;
}

static void remove_wait(struct waits *w, struct room_wait *wait) {
  if (wait->next) wait->next->prev = wait->prev;
  if (wait->prev)
    wait->prev->next = wait->next;
  else if (!wait->next || map_put_id(&w->by_key, wait->key, wait->next)) /* replaces, so needs no memory */
    map_remove_id(&w->by_key, wait->key);
  atomic_fetch_sub(&w->count, 1);
  if (npid_is_ref(wait->key)) atomic_fetch_sub(&w->for_inbox, 1);
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

void waits_leave(struct waits *w, struct room_wait *wait) {
  if (!wait) return;
  pthread_mutex_lock(&w->lock);
  if (wait->signal) remove_wait(w, wait);
  pthread_mutex_unlock(&w->lock);
  signal_free(wait->signal);
  free(wait);
}

struct signal *waits_end(struct waits *w, npid key) {
  struct signal *told = NULL;
  if (!atomic_load(&w->count)) return NULL;
  pthread_mutex_lock(&w->lock);
  for (struct room_wait *wait; (wait = map_get_id(&w->by_key, key));) { /* newest first */
    remove_wait(w, wait);
    wait->signal->next = told;
    told = wait->signal;
    wait->signal = NULL;
  }
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
