/* preempt: takes the core from a green thread that keeps it.
 *
 * While a scheduler is busy, a timer signals its thread every SCHED_TICK_NS.  When the handler finds the same
 * green thread that ran at the last tick, it sets a count hook on it (lua_sethook may be called from a
 * handler), and the hook yields at the next instruction.  Code that is not signalled runs at full speed. A
 * tick that finds its scheduler asleep turns the timer off, and the next isolate to run turns it on again.
 *
 * What a C function calls back cannot yield.  It runs on, but not for ever: after PREEMPT_CALLBACK_TICKS the
 * hook raises an error, again and again, until the C function is left. */
#ifndef VM_SCHED_PREEMPT_H
#define VM_SCHED_PREEMPT_H

#include "base/err.h"
#include "vm/sched/sched.h"

#include <lua.h>
#include <stdbool.h>

enum { PREEMPT_CALLBACK_TICKS = 1000000000 / SCHED_TICK_NS }; /* a second */

/* Once before any thread: the handler of the signal. */
int preempt_install(void) MUST_CHECK;

/* By the scheduler's own thread. */
void preempt_init(struct scheduler *s);
void preempt_arm(struct scheduler *s);
void preempt_finish(struct scheduler *s);

/* Makes the green thread yield, or if it must end fail, at its next instruction. */
void preempt_now(lua_State *L);

/* For a C function that computes for long, between two steps of it: true when it is to yield now.  Raises
 * when it cannot, and has had its time or must end. */
bool preempt_due(lua_State *L);

#endif
