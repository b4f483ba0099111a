/* preempt: takes the core from a green thread that keeps it.
 *
 * While a scheduler is busy, a timer signals its thread every SCHED_TICK_NS.  When the handler finds the
 * green thread that also ran at the last tick, it sets a count hook on its coroutine (Lua allows lua_sethook
 * in a signal handler), and the hook yields at the next instruction.  Code that is not signalled runs at full
 * speed. A tick that finds its scheduler asleep turns the timer off; the next runnable that is run turns it
 * on again.
 *
 * Code that a C function calls back cannot yield.  It runs on until PREEMPT_CALLBACK_TICKS are over; then the
 * hook raises an error, again at every instruction, until the C function has returned. */
#ifndef VM_SCHED_PREEMPT_H
#define VM_SCHED_PREEMPT_H

#include "base/err.h"
#include "vm/sched/sched.h"

#include <lua.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { PREEMPT_CALLBACK_TICKS = 1000000000 / SCHED_TICK_NS }; /* a second */

/* What preemption knows of a green thread.  The extra space of its coroutine (lua_getextraspace) has a
 * pointer to it, and it is the first member of the green thread's own struct, which that pointer leads to as
 * well. */
struct preemptible {
  struct runnable *runnable; /* whose scheduler runs it */
  struct term *end;          /* why it must end; NULL: it may run on */
};

/* Installs the handler of the signal; once, before any scheduler thread. */
int preempt_install(void) MUST_CHECK;

/* --- by a scheduler's own thread --- */

/* Makes the timer; an error says which limit is in the way. */
int preempt_init(struct scheduler *s, struct error *e) MUST_CHECK;
void preempt_finish(struct scheduler *s);

/* Turns the timer on, if it is off. */
void preempt_arm(struct scheduler *s);

/* The coroutine has the core from now on; and no coroutine has it. */
static inline void preempt_enter(struct scheduler *s, lua_State *L) {
  atomic_store_explicit(&s->switches, s->switches + 1, memory_order_relaxed);
  atomic_store_explicit(&s->running, L, memory_order_relaxed);
}
static inline void preempt_leave(struct scheduler *s) {
  atomic_store_explicit(&s->running, NULL, memory_order_relaxed);
}

/* Makes the green thread yield at its next instruction, or fail there if it must end. */
void preempt_now(lua_State *L);

#endif
