/* Invariant: a wait is in the list of what it waits for until it leaves, or is told: then its signal, made as
 * it entered so that memory is never missing, is on its way.  waits and inbox_waits count those in lists, and
 * held_count is the length of held; all change under the lock only. */
#include "vm/sched/room.h"

#include "vm/sched/state.h"

#include <stdlib.h>

struct room_wait {
  struct room_wait *next, *before;
  struct signal *signal; /* NULL once it is on its way */
  npid lack;
};

void room_init(struct room *r) {
  *r = (struct room){.held = MAP_INIT, .lacking = MAP_INIT};
  pthread_mutex_init(&r->lock, NULL);
}

void room_finish(struct room *r) {
  map_finish(&r->held);
  map_finish(&r->lacking);
  pthread_mutex_destroy(&r->lock);
}

npid room_of_inbox(const struct inbox *in) {
  return npid_as_ref((npid)(uintptr_t)in);
}

/* --- waiting --- */

/* Under the lock, as is remove_wait. */
static int insert_wait(struct room *r, struct room_wait *w) {
  struct room_wait *first = map_get_id(&r->lacking, w->lack);
  if (map_put_id(&r->lacking, w->lack, w)) return ERR_NOMEM;
  w->next = first;
  if (first) first->before = w;
  atomic_fetch_add(&r->waits, 1);
  if (npid_is_ref(w->lack)) atomic_fetch_add(&r->inbox_waits, 1);
  return 0;
}

static void remove_wait(struct room *r, struct room_wait *w) {
  if (w->next) w->next->before = w->before;
  if (w->before)
    w->before->next = w->next;
  else if (!w->next || map_put_id(&r->lacking, w->lack, w->next)) /* in place of w: that takes no memory */
    map_remove_id(&r->lacking, w->lack);
  atomic_fetch_sub(&r->waits, 1);
  if (npid_is_ref(w->lack)) atomic_fetch_sub(&r->inbox_waits, 1);
}

struct room_wait *room_enter(struct room *r, npid lack, npid to, npid who) {
  struct room_wait *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->lack = lack;
  w->signal = signal_new(SIGNAL_ROOM, who, to, NPID_NONE, NULL);
  pthread_mutex_lock(&r->lock);
  int code = w->signal ? insert_wait(r, w) : ERR_NOMEM;
  pthread_mutex_unlock(&r->lock);
  if (!code) return w;
  signal_free(w->signal);
  free(w);
  return NULL;
}

void room_leave(struct room *r, struct room_wait *w) {
  if (!w) return;
  pthread_mutex_lock(&r->lock);
  if (w->signal) remove_wait(r, w);
  pthread_mutex_unlock(&r->lock);
  signal_free(w->signal);
  free(w);
}

void room_came(struct vm *vm, npid lack) {
  struct room *r = &vm->room;
  struct signal *told = NULL;
  if (!atomic_load(&r->waits)) return;
  pthread_mutex_lock(&r->lock);
  for (struct room_wait *w; (w = map_get_id(&r->lacking, lack));) { /* newest first */
    remove_wait(r, w);
    w->signal->next = told;
    told = w->signal;
    w->signal = NULL;
  }
  pthread_mutex_unlock(&r->lock);
  for (struct signal *next; told; told = next) {
    next = told->next;
    vm_deliver(vm, told);
  }
}

/* --- processes of other nodes --- */

static void recount(struct room *r) {
  atomic_store(&r->held_count, r->held.len);
}

void room_hold(struct room *r, npid pid, bool held) {
  pthread_mutex_lock(&r->lock);
  if (!held || map_put_id(&r->held, pid, r)) map_remove_id(&r->held, pid);
  recount(r);
  pthread_mutex_unlock(&r->lock);
}

bool room_held(struct room *r, npid pid) {
  if (!atomic_load(&r->held_count)) return false;
  pthread_mutex_lock(&r->lock);
  bool has = map_get_id(&r->held, pid);
  pthread_mutex_unlock(&r->lock);
  return has;
}

size_t room_held_of(struct room *r, uint32_t incarnation, npid *out, size_t max) {
  size_t n = 0;
  uint64_t pid;
  pthread_mutex_lock(&r->lock);
  for (size_t at = 0; n < max && map_next(&r->held, &at, NULL, &pid, NULL);)
    if (npid_incarnation(pid) == incarnation) out[n++] = pid;
  pthread_mutex_unlock(&r->lock);
  return n;
}
