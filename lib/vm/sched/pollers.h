/* pollers: two threads that run the loop of the host in turn, and lend themselves to processes.
 *
 * What comes over a socket mostly wakes one process, which answers, and waits again.  For that the loop wakes
 * no scheduler: the poller that has run a turn of the loop which woke one runnable runs this one for a slice
 * itself, and then goes on with the loop.
 *
 * Nobody polls during that slice.  When it takes longer, the other poller, which stands by, takes over the
 * loop; the first one stands by as soon as its slice is over.  So the loop waits for a process for twice
 * POLLERS_NS and a wake-up at most.  That needs no help of the first thread: it may hang in a system call.
 *
 * A poller lends itself only while the other one stands by, so a process that holds its thread for ever, in a
 * call that does not return, never holds the loop; and only while a scheduler sleeps. */
#ifndef VM_POLLERS_H
#define VM_POLLERS_H

#include "base/err.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

struct runnable;
struct scheduler;
struct schedulers;

#define POLLERS_NS 1000000 /* after so long the poller that stands by looks whether a slice goes on */

enum {
  POLLERS = 2,
  POLLERS_LEND = 4 /* a runnable with more signals in its inbox is left to a scheduler, beside the loop */
};

struct pollers {
  bool (*turn)(void *data); /* runs a turn of the loop, which waits for an event if pollers_may_wait then;
                               false: the loop has ended.  NULL: there are no pollers */
  void *data;
  pthread_key_t self; /* the poller of this thread, or NULL */
  bool has_self;
  atomic_bool polls;  /* a poller runs the loop, or pollers_run has not been called */
  atomic_int standby; /* pollers that stand by: they read `timer` */
  int timer;          /* a timerfd */
  atomic_bool armed;  /* it runs, or has expired and was not read */
  atomic_uint slices; /* that pollers have run */
  atomic_bool over;   /* the loop has ended, or the pollers must */
  sem_t ended;        /* posted when the loop has ended */
};

/* By the thread that owns the vm: after the threads have started, runs the loop until `turn` has returned
 * false; then no poller uses the loop. */
void pollers_run(struct schedulers *all);

/* Before sched_start.  0 or ERR_SYSTEM, with errno. */
int pollers_init(struct pollers *p, bool (*turn)(void *data), void *data) MUST_CHECK;
void pollers_finish(struct pollers *p);

/* The main function of a poller's thread. */
void pollers_main(struct scheduler *s);

/* Ends the threads, which sched_stop joins. */
void pollers_stop(struct pollers *p);

/* A thread that is no scheduler has made r QUEUED.  True: it is a poller, and runs r after this turn. */
bool pollers_take(struct schedulers *all, struct runnable *r);

/* True when pollers_take has given the calling thread nothing to run in this turn of the loop: only then may
 * the turn wait for events. */
bool pollers_may_wait(const struct pollers *p);

#endif
