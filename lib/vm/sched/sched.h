/* clang-format off */
/* sched: one thread a core, each with a queue of runnables that have something to do.
 *
 * A runnable is what a scheduler runs: an isolate (process/isolate.h) in a vm, a fake in the unit test.  It
 * has an inbox, and is in one of four states.  Whoever pushes into an inbox that was empty wakes its runnable:
 *
 *   state     meaning                                            a wake-up makes it
 *   IDLE      in no queue                                        QUEUED, in a queue
 *   QUEUED    in one queue                                       (no change)
 *   RUNNING   run by one scheduler                               NOTIFIED
 *   NOTIFIED  running, and looks at its inbox before it rests    (no change)
 *
 * Every change is a read-modify-write of the one variable, so a wake-up is never lost between two looks.
 *
 * A scheduler takes runnables that were woken, by a signal or by the clock, before those that only compute:
 * an event waits for the end of one slice, however many endless loops there are.  After SCHED_PATIENCE ticks
 * without a turn for the computing ones, one of them comes first.
 *
 * A woken runnable goes into the waker's own queue, so two that talk to each other share a core.  Work that
 * still waits at the next tick wakes a sleeping scheduler, which steals it.  With nothing to do all threads
 * sleep in ppoll, and no timer ticks. */
/* clang-format on */
#ifndef VM_SCHED_H
#define VM_SCHED_H

#include "base/err.h"
#include "core/signal.h"
#include "vm/sched/timers.h"

#include <lua.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct scheduler;
struct schedulers;

enum { SCHED_TICK_NS = 500000, SCHED_PATIENCE = 8 /* ticks */ };

enum runnable_state { RUNNABLE_IDLE, RUNNABLE_QUEUED, RUNNABLE_RUNNING, RUNNABLE_NOTIFIED };

/* The first member of what is run.  Zero-initialized: idle, with an empty inbox. */
struct runnable {
  struct runnable *next, *prev;     /* in a queue, under the lock of its scheduler */
  _Atomic(struct scheduler *) home; /* whose queue that is; NULL in none */
  atomic_bool computes;             /* which of the two queues */
  atomic_int state;
  struct inbox inbox;
  struct timer sleep;          /* in schedulers.sleepers */
  struct scheduler *scheduler; /* that runs it, or ran it last; for that thread */
};

struct run_queue {
  struct runnable *first, *last;
};

struct scheduler {
  struct schedulers *all;
  int index;
  pthread_t thread;
  bool has_thread;

  pthread_mutex_t lock; /* of the queues */
  struct run_queue woken, computing;
  unsigned computed; /* ticks at the end of the last turn of a computing one; the thread's own */
  atomic_int queued; /* in both queues */

  int event; /* eventfd that ends the thread's sleep */
  atomic_bool asleep;

  timer_t timer; /* ticks while the scheduler is busy: preempt.h, as all that follows */
  bool has_timer;
  atomic_bool ticking;
  atomic_uint ticks;             /* counted by the signal handler */
  _Atomic(lua_State *) running;  /* the green thread that has the core */
  atomic_uint switches;          /* counts green threads run */
  unsigned seen;                 /* switches at the last tick; the handler's own */
  atomic_uint hooked, hook_tick; /* switches and ticks at the last hook */
};

/* The runnables that sleep until a deadline. */
struct sleepers {
  pthread_mutex_t lock;
  struct timers timers;
  _Atomic int64_t next;    /* the earliest deadline, or TIMER_NEVER; read without the lock */
  _Atomic int64_t covered; /* a sleeping scheduler wakes by then, or TIMER_NEVER */
};

struct schedulers {
  int count;
  struct scheduler *scheduler; /* that many */
  /* Runs r for a slice: until sched_rest has said that it is idle, or until slice_over and then
   * sched_requeue. Called by the thread of s. */
  void (*run)(struct runnable *r, struct scheduler *s);
  pthread_key_t self; /* the scheduler of this thread, or NULL */
  bool has_self;
  atomic_int asleep; /* schedulers that wait for work */
  atomic_uint rotor; /* which of them gets the next work from other threads */
  atomic_bool stopping;
  struct sleepers sleepers;
};

/* --- life: by the thread that owns the vm --- */

int sched_init(struct schedulers *all, int count,
               void (*run)(struct runnable *, struct scheduler *)) MUST_CHECK;

/* Starts the threads.  Each needs a timer: an error says which limit is in the way.  After an error the
 * threads that did start still run, until sched_stop. */
int sched_start(struct schedulers *all, struct error *e) MUST_CHECK;

/* Ends the threads, each after its slice, and joins them; ERR_TIMEOUT when one has not ended by then. */
int sched_stop(struct schedulers *all, const struct timespec *until) MUST_CHECK;

/* After a sched_stop that returned 0, or a sched_init that failed. */
void sched_finish(struct schedulers *all);

/* --- any thread --- */

/* After an inbox_push that found the inbox empty, or when a deadline has passed. */
void sched_wake(struct schedulers *all, struct runnable *r);

/* Wakes a sleeping scheduler, if there is one.  Async-signal-safe. */
void sched_kick(struct schedulers *all);

/* The scheduler of the calling thread, or NULL. */
struct scheduler *sched_self(struct schedulers *all);

/* One turn of a scheduler, without its thread: runs the next runnable.  False when there is none. */
bool sched_step(struct scheduler *s);

/* --- for schedulers.run: by the scheduler that runs r --- */

static inline unsigned sched_ticks(const struct scheduler *s) {
  return atomic_load_explicit(&s->ticks, memory_order_relaxed);
}

/* Is the slice that began at tick `begin` over? */
static inline bool sched_slice_over(const struct scheduler *s, unsigned begin) {
  return sched_ticks(s) != begin || atomic_load(&s->all->stopping);
}

/* r has nothing to do.  True: it is idle now, and other threads may run it.  False: it was woken meanwhile,
 * and goes on. */
bool sched_rest(struct runnable *r);

/* Wakes r at that time at the latest. */
void sched_sleep_until(struct runnable *r, int64_t at);

/* Puts r back into the queue, at the end.  If it only computes it comes after the woken ones, until it is
 * woken or its next deadline has come. */
void sched_requeue(struct runnable *r, bool computes, int64_t deadline);

#endif
