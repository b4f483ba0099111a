/* sched: one thread a core, each with a queue of isolates that have something to do.
 *
 * An isolate is in one of four states; whoever pushed into its inbox wakes it:
 *   IDLE      in no queue            wake: QUEUED, and into a queue
 *   QUEUED    in one queue           wake: nothing to do
 *   RUNNING   run by one scheduler   wake: NOTIFIED
 *   NOTIFIED  running, to look again before it goes idle
 * Every change is a read-modify-write of the one variable, so no wake-up falls between two looks.
 *
 * An isolate in which somebody was woken, by a message or the clock, comes before those that only compute:
 * who waits for an event waits for the end of one slice, however many endless loops there are.  After
 * SCHED_PATIENCE ticks without a turn of theirs one of those comes first.
 *
 * A woken isolate goes to the waker's own queue: two that talk to each other share a core.  Only work that is
 * still waiting at the next tick calls another scheduler out of its sleep; that one steals it.  With
 * nothing to do all threads sleep in ppoll and no timer ticks. */
#ifndef VM_SCHED_H
#define VM_SCHED_H

#include "base/err.h"

#include <lua.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct vm;
struct isolate;

enum isolate_state { ISOLATE_IDLE, ISOLATE_QUEUED, ISOLATE_RUNNING, ISOLATE_NOTIFIED };

enum {
  SCHED_TICK_NS = 500000,
  SCHED_OPEN = 16,
  SCHED_FEW = 4,
  SCHED_CHUNK = 64,
  SCHED_PATIENCE = 8 /* ticks */
};

struct isolates {
  struct isolate *first, *last;
};

struct scheduler {
  struct vm *vm;
  int index;
  pthread_t thread;
  bool running_thread; /* the thread was started */

  pthread_mutex_t lock; /* of the queues */
  struct isolates woken, computing;
  unsigned computed; /* ticks at the end of the last turn of one of the latter; the thread's own */
  atomic_int queued; /* in both */

  int event; /* eventfd to sleep on */
  atomic_bool asleep;

  timer_t timer;
  bool has_timer;
  atomic_bool ticking;
  atomic_uint ticks;             /* counted by the signal handler */
  _Atomic(lua_State *) running;  /* the green thread that has the core */
  atomic_uint switches;          /* counts green threads run */
  unsigned seen;                 /* switches at the last tick; the handler's own */
  atomic_uint hooked, hook_tick; /* switches and ticks at the last hook */

  struct isolate *open[SCHED_OPEN]; /* where the processes that this core spawns go, SCHED_CHUNK at a time */
  unsigned spawns;
};

int sched_init(struct scheduler *s, struct vm *vm, int index) MUST_CHECK;
int sched_start(struct scheduler *s) MUST_CHECK;
int sched_join(struct scheduler *s, const struct timespec *until) MUST_CHECK; /* after vm->stopping was set */
void sched_finish(struct scheduler *s);

/* Any thread, after an inbox_push that found the inbox empty, or when a deadline has passed. */
void sched_wake(struct vm *vm, struct isolate *iso);

/* Wakes a sleeping scheduler, if there is one. Async-signal-safe. */
void sched_kick(struct vm *vm);

/* The scheduler of the calling thread, or NULL. */
struct scheduler *sched_self(struct vm *vm);

/* By the scheduler that runs iso: wake it at that time at the latest. */
void sched_sleep_until(struct isolate *iso, int64_t at);

/* By the scheduler that runs iso: back into its queue, at the end.  One that only computes comes after those
 * in which somebody was woken, until somebody is woken in it, or its next deadline has come. */
void sched_requeue(struct scheduler *s, struct isolate *iso, bool computes, int64_t deadline);

#endif
