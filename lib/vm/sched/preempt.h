/* preempt: takes the core from a green thread that keeps it.
 *
 * While a scheduler is busy, a timer signals its thread every SCHED_TICK_NS.  When the handler finds a green
 * thread that has had the core for most of a tick, in processor time, it sets a count hook on its coroutine
 * (Lua allows lua_sethook in a signal handler), and the hook yields at the next instruction.  Code that is
 * not signalled runs at full speed.  A tick that finds its scheduler asleep stops the timer; preempt_arm
 * starts it again before the next runnable runs.
 *
 * lua_sethook takes time for each frame of a coroutine's stack: milliseconds for 100,000.  So a green thread
 * is hooked only when it has had the core for at least as long as its last hook took to set; deep recursion
 * is then at most half as fast as it would be alone.
 *
 * A recursion that is more than PREEMPT_CALLS_MAX calls deep when it is hooked gets the error "stack
 * overflow". Lua itself bounds the slots of a stack, of which a call takes one at least: a million calls take
 * 40 ms where nothing can interrupt, as the stack grows or is freed.
 *
 * Code that a C function calls back cannot yield.  It runs on for PREEMPT_CALLBACK_TICKS; then the hook
 * raises an error, again at each instruction, until the C function has returned. */
#ifndef VM_SCHED_PREEMPT_H
#define VM_SCHED_PREEMPT_H

#include "base/err.h"
#include "vm/sched/ptab.h"
#include "vm/sched/sched.h"

#include <lua.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
  PREEMPT_CALLBACK_TICKS = 1000000000 / SCHED_TICK_NS, /* a second */
  PREEMPT_CALLS_MAX = 200000,
};

/* What preemption knows of a green thread.  It is the first member of the green thread's own struct, and the
 * extra space of the coroutine (lua_getextraspace) holds a pointer to it, so the same pointer also leads to
 * the green thread. */
struct preemptible {
  struct runnable *runnable; /* the runnable that owns the green thread */
  struct term *end;          /* the reason with which it must end; NULL: it may run on */
  bool interrupted;          /* it gets an error at its next instruction, or where it waits */
  _Atomic uint32_t hook_us;  /* how long its last hook took to set */
  struct ptab_facts *facts;  /* of a live process; the handler counts its ticks */
};

/* Installs the signal's handler.  To be called once, before the first scheduler thread starts. */
int preempt_install(void) MUST_CHECK;

/* --- by a scheduler's own thread --- */

/* Makes the scheduler's timer.  On failure *e says which limit prevents this. */
int preempt_init(struct scheduler *s, struct error *e) MUST_CHECK;
void preempt_finish(struct scheduler *s);

/* Starts the timer, if it does not run. */
void preempt_arm(struct scheduler *s);

/* To be called before a coroutine is resumed, and after it has stopped. */
static inline void preempt_enter(struct scheduler *s, lua_State *L) {
  atomic_store_explicit(&s->switches, s->switches + 1, memory_order_relaxed);
  atomic_store_explicit(&s->running, L, memory_order_relaxed);
}
static inline void preempt_leave(struct scheduler *s) {
  atomic_store_explicit(&s->running, NULL, memory_order_relaxed);
}

/* To be called before the preempt_enter of a green thread that computes: its slice begins now, at the
 * processor time (clock_thread_ns) that this returns.  That of any other one begins with the first tick that
 * finds it. */
int64_t preempt_begin_slice(struct scheduler *s);

/* Makes the green thread raise the error "interrupted" at its next instruction, if preempt_check has not
 * raised it before: the continuation of a wait calls that.  For a green thread that does not run. */
void preempt_interrupt(struct preemptible *p, lua_State *L);
void preempt_check(lua_State *L);

/* Makes the green thread yield at its next instruction; inside a callback, end_callback decides. */
void preempt_now(lua_State *L);

/* --- by any thread: is the scheduler held? --- */

/* A scheduler whose `progress` does not change while it is not idle is held. */
struct preempt_pulse {
  unsigned progress, switches;
  bool idle;
};
void preempt_pulse(struct scheduler *s, struct preempt_pulse *out);

/* Whom a tick has found running at this value of `switches`; NULL: nobody, as no tick came, or as the work of
 * the isolate itself holds the scheduler. */
struct ptab_facts *preempt_found(struct scheduler *s, unsigned switches);

/* Asks who it is that holds the scheduler, and where in its code: both are noted when the hold ends, at the
 * latest. */
void preempt_ask_place(struct scheduler *s);

/* Where in its code the green thread was that held the scheduler and ran as `switches` had this value, as
 * file:line; "" when that is not known. */
void preempt_place(struct scheduler *s, unsigned switches, char out[SCHED_PLACE_SIZE]);

#endif
