/* clang-format off */
/* sched: one thread for each core, each with a queue of runnables that have work to do.
 *
 * A runnable is what a scheduler runs: an isolate (process/isolate.h) in a vm, a fake in the unit test.  It
 * has an inbox, and is in one of four states.  A thread that pushes into an empty inbox wakes its runnable:
 *
 *   state     meaning                                            a wake-up makes it
 *   IDLE      in no queue                                        QUEUED, in a queue
 *   QUEUED    in one queue                                       (no change)
 *   RUNNING   run by one scheduler                               NOTIFIED
 *   NOTIFIED  running, and looks at its inbox before it rests    (no change)
 *
 * Each change is one read-modify-write of `state`, so no wake-up is lost.
 *
 * A scheduler takes runnables that were woken, by a signal or by the clock, before those that only compute:
 * an event waits for the end of one slice, however many endless loops there are.  After SCHED_PATIENCE ticks
 * without a turn for the computing ones, one of them comes first; but not before a woken one with processes
 * that were made to give up the core, and have had less of it.
 *
 * The woken runnables wait in a queue of each scheduler, the computing ones in a heap that all schedulers
 * share, ordered by virtual time (stride scheduling): the processor time that each process of a runnable has
 * computed, on average.  The runnable with the least comes first.  So all processes that compute get equal
 * shares of all cores, in whichever isolates they are; but one isolate never has more than one core.  Those
 * that join begin with those that wait and have had the least.  A runnable that is woken while it waits in the
 * heap keeps its virtual time: its woken processes run at once, and those that compute only when their turn
 * has come (sched_may_compute).
 *
 * There are two such heaps.  Runnables in which only processes of low priority compute wait in the second
 * one: it is served when the first is empty, and at every SCHED_LOW_TURN-th turn.
 *
 * A woken runnable goes into the waker's own queue, so two that talk to each other share a core.  Work that
 * still waits at the next tick wakes a sleeping scheduler, which steals it; so does a deadline that has passed.
 * When there is no work, all threads sleep on a futex, and no timer ticks.  A runnable that is then woken by a
 * thread that is no scheduler goes to the scheduler that ran it last, whose core may have its data in the
 * cache. */
/* clang-format on */
#ifndef VM_SCHED_H
#define VM_SCHED_H

#include "base/err.h"
#include "core/signal.h"
#include "vm/sched/pollers.h"
#include "vm/sched/timers.h"

#include <lua.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct ptab_facts;
struct scheduler;
struct schedulers;

enum { SCHED_PLACE_SIZE = 80 };
enum { SCHED_TICK_NS = 500000, SCHED_PATIENCE = 8 /* ticks */, SCHED_LOW_TURN = 8 };

enum runnable_state { RUNNABLE_IDLE, RUNNABLE_QUEUED, RUNNABLE_RUNNING, RUNNABLE_NOTIFIED };

enum sched_class { SCHED_CLASS_NORMAL, SCHED_CLASS_LOW, SCHED_CLASSES };

/* The first member of the struct that a scheduler runs.  Zero-initialized it is idle, with an empty inbox. */
struct runnable {
  struct runnable *next, *prev; /* in a queue of the woken, under the queue's lock */
  struct timer turn;            /* in a heap of the computing; `at` is its virtual time, */
  unsigned members;             /* the mean of so many processes; 0: none computed in the last turn */
  bool joining;                 /* processes of it that were woken used up a slice in its last turn */
  enum sched_class class;       /* of that heap; both change under the lock of the heaps */
  atomic_bool computes;         /* it is in that heap */
  atomic_int state;
  atomic_uint load; /* processes that wanted to compute at the end of its last turn */
  struct inbox inbox;
  struct timer sleep;          /* in schedulers.sleepers */
  struct scheduler *scheduler; /* runs it, or ran it last; read by that thread, under a queue's lock, and by
                                the thread that has made an idle runnable QUEUED */
};

struct run_queue {
  pthread_mutex_t lock;
  struct runnable *first, *last;
  atomic_int len;
};

/* The runnables that compute, by virtual time. */
struct computing {
  pthread_mutex_t lock;
  struct timers order[SCHED_CLASSES];
  _Atomic int64_t now[SCHED_CLASSES]; /* the virtual time of the furthest turn that has begun */
  atomic_int len;                     /* of both heaps */
  atomic_int normal;                  /* of the first */
};

struct scheduler {
  struct schedulers *all;
  int index;
  pthread_t thread;
  bool has_thread;

  struct run_queue woken;
  /* Only the thread uses these five. */
  unsigned computed;     /* ticks at the end of the last turn of a computing runnable */
  unsigned above_low;    /* turns of normal computing runnables since the last one of low priority */
  bool computes;         /* the present turn is that of a computing runnable */
  bool lingered;         /* sched_may_linger was true in the present turn */
  struct signal *parked; /* to another node, until the next one or the end of the turn (deliver.c); or NULL */

  atomic_uint asleep; /* 1 while the thread sleeps, or is about to: the futex on which it does so */

  timer_t timer; /* ticks while the scheduler is busy; this and all below is for preempt.c */
  bool has_timer;
  atomic_bool ticking;
  atomic_uint ticks;             /* counted by the signal handler */
  _Atomic(lua_State *) running;  /* the green thread that has the core */
  atomic_uint switches;          /* counts green threads run */
  unsigned seen;                 /* switches at the last tick that found another green thread than before, */
  int64_t since;                 /* and the thread's processor time then: its slice began at the latest */
  atomic_uint hooked, hook_tick; /* switches and ticks at the last hook */
  atomic_uint turns;             /* counts runnables run */
  _Atomic(struct ptab_facts *) found; /* of the green thread that the last tick found; NULL: none */
  atomic_bool held; /* somebody asks where the green thread is that keeps the core: on_hook notes it */
  char place[SCHED_PLACE_SIZE]; /* where; under place_lock */
  unsigned placed;              /* switches at that time; under place_lock */
  pthread_mutex_t place_lock;
  atomic_uint found_switches;         /* switches at the tick that has set `found` */
  _Atomic(struct ptab_facts *) asked; /* as found, of the first tick after a question, */
  atomic_uint asked_switches;         /* at that value of switches */
  atomic_bool asks;                   /* the question */
  unsigned measured;                  /* ticks when it last measured the memory; for process/budget.c */

  /* Of a poller (pollers.h). */
  struct runnable *taken; /* to be run after this turn of the loop; or NULL */
  unsigned woke;          /* runnables in this turn */
};

/* The runnables that sleep until a deadline. */
struct sleepers {
  pthread_mutex_t lock;
  struct timers timers;
  _Atomic int64_t next;    /* the earliest deadline, or TIMER_NEVER; read without the lock */
  _Atomic int64_t covered; /* the time by which a sleeping scheduler wakes, or TIMER_NEVER */
};

struct schedulers {
  int count;
  struct scheduler *scheduler; /* `count` of them; behind them those of the POLLERS, which have no queue */
  struct computing computing;
  /* Runs r for a slice, by the thread of s.  Returns when sched_rest has returned true; or after it has
   * called sched_requeue, because sched_slice_over is true. */
  void (*run)(struct runnable *r, struct scheduler *s);
  void (*awake)(void *data); /* called by a scheduler that has slept, when it is marked as awake; or NULL */
  void *awake_data;
  pthread_key_t self; /* the scheduler of this thread, or NULL */
  bool has_self;
  atomic_int asleep; /* schedulers that wait for work */
  atomic_uint rotor; /* chooses the scheduler for work that comes from other threads */
  atomic_bool stopping;
  struct sleepers sleepers;
  struct pollers pollers;
};

/* --- life: by the thread that owns the vm --- */

int sched_init(struct schedulers *all, int count,
               void (*run)(struct runnable *, struct scheduler *)) MUST_CHECK;

/* Starts the threads, those of the pollers, too.  Each needs a timer: after a failure *e says which limit
 * prevents it, and the threads that did start run until sched_stop. */
int sched_start(struct schedulers *all, struct error *e) MUST_CHECK;

/* Ends the threads, each after its slice, and joins them.  ERR_TIMEOUT: one has not ended by `until`. */
int sched_stop(struct schedulers *all, const struct timespec *until) MUST_CHECK;

/* The processor time that a scheduler has used, in nanoseconds; -1: its thread does not run. */
int64_t sched_busy_ns(const struct scheduler *s);

/* After a sched_stop that returned 0, or a sched_init that failed. */
void sched_finish(struct schedulers *all);

/* --- any thread --- */

/* Wakes r.  To be called after an inbox_push that returned true, or when r's deadline has passed. */
void sched_wake(struct schedulers *all, struct runnable *r);

/* Wakes a sleeping scheduler, if there is one.  Async-signal-safe. */
void sched_kick(struct schedulers *all);

/* The scheduler of the calling thread, or NULL. */
struct scheduler *sched_self(struct schedulers *all);

/* Runs the next runnable for one slice, as the thread of s does.  False when there is none. */
bool sched_step(struct scheduler *s);

/* --- by pollers --- */

static inline bool sched_is_poller(const struct scheduler *s) {
  return s->index >= s->all->count;
}

/* Queues r, which is QUEUED, at a scheduler, and wakes that if it sleeps: one that sleeps before one that
 * does not, and the one that ran r last before any other. */
void sched_place(struct schedulers *all, struct runnable *r);

/* Runs r, which is QUEUED and in no queue, for one slice by the thread of the poller s. */
void sched_lend(struct scheduler *s, struct runnable *r);

/* --- for schedulers.run: by the scheduler that runs r --- */

static inline unsigned sched_ticks(const struct scheduler *s) {
  return atomic_load_explicit(&s->ticks, memory_order_relaxed);
}

/* Is the slice that began at tick `begin` over? */
static inline bool sched_slice_over(const struct scheduler *s, unsigned begin) {
  return sched_ticks(s) != begin || atomic_load(&s->all->stopping);
}

/* To be called when r has no work.  True: r is idle now, and another thread may run it at once.  False: r was
 * woken meanwhile, and must look for work again. */
bool sched_rest(struct runnable *r);

/* Sets r's deadline, unless it has an earlier one: r is woken then. */
void sched_sleep_until(struct runnable *r, int64_t at);

/* May processes of r that compute run in this turn of s, although none is woken?  True in a turn that r has
 * got for them, or when no other runnable has waited longer for one. */
bool sched_may_compute(const struct scheduler *s, const struct runnable *r, enum sched_class class);

/* May the runnable that s runs do work of the host, such as a write to a socket?  True once a turn, and only
 * while no other runnable waits: so the work of many is left to the host, which does it together. */
bool sched_may_linger(struct scheduler *s);

/* What a runnable wants after a turn. */
struct sched_demand {
  bool woken;           /* it has woken work: it goes to the end of its scheduler's queue */
  unsigned normal, low; /* processes that want to compute, by their priority */
  int64_t used;         /* processor time, in ns, of this turn in which such processes have run */
  int64_t deadline;     /* not woken: it comes after the woken runnables until it is woken or this has come */
};

/* Queues r again.  A demand without any process counts as one that computes. */
void sched_requeue(struct runnable *r, struct sched_demand demand);

/* How many processes of r want to compute, eight of low priority counting as one; 0 when it has rested since.
 * Any thread. */
static inline unsigned sched_load(const struct runnable *r) {
  return atomic_load_explicit(&r->load, memory_order_relaxed);
}

#endif
