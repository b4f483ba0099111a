/* room: who takes no more messages for now, and who waits until they do.  Any thread.
 *
 * What lacks room is known by an npid: a process of this node, or of another that its node has told of; the
 * kernel of a node, when the way there is full; or an inbox (room_of_inbox).  Who finds a lack enters as a
 * waiter, looks again (vm_await_room), and waits for the signal ROOM; who ends a lack looks for waiters after
 * that.  So one of the two sees the other. */
#ifndef VM_SCHED_ROOM_H
#define VM_SCHED_ROOM_H

#include "base/map.h"
#include "core/npid.h"
#include "core/signal.h"

#include <pthread.h>
#include <stdatomic.h>

struct vm;
struct room_wait;

struct room {
  atomic_size_t waits, inbox_waits; /* of these the ones for an inbox */
  atomic_size_t held_count;         /* of held: mostly none, and then nobody takes the lock */
  pthread_mutex_t lock;             /* of all below */
  struct map held;    /* the processes of other nodes that take no more, as their nodes have told */
  struct map lacking; /* npid -> the newest of those that wait for it */
};

void room_init(struct room *r);
void room_finish(struct room *r);

/* The npid by which an inbox is known here: nobody's. */
npid room_of_inbox(const struct inbox *in);

/* Waits for the end of a lack: then the signal ROOM goes to `who`, once, from `to`.  The wait is the
 * caller's, who ends it with room_leave, after the signal or instead.  NULL without memory. */
struct room_wait *room_enter(struct room *r, npid lack, npid to, npid who);
void room_leave(struct room *r, struct room_wait *w); /* accepts NULL */

/* A lack has ended (seq_cst, before this call): whoever waits for it is told. */
void room_came(struct vm *vm, npid lack);

/* See vm_hold. */
void room_hold(struct room *r, npid pid, bool held); /* without memory for it nobody is held */
bool room_held(struct room *r, npid pid);

/* Up to max of those of a node who are held; returns how many. */
size_t room_held_of(struct room *r, uint32_t incarnation, npid *out, size_t max);

#endif
