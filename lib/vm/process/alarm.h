/* alarm: a message that is sent later, for send_after.  An alarm belongs to the isolate of the process that
 * has set it, so it is sent even when that process has ended.  An alarm to a pid counts as cancelled once
 * that process has ended, as in Erlang. */
#ifndef VM_PROCESS_ALARM_H
#define VM_PROCESS_ALARM_H

#include "base/err.h"
#include "core/npid.h"
#include "core/term.h"
#include "vm/sched/timers.h"

struct alarm;
struct isolate;
struct process;
struct signal;
struct vm;

/* Sets an alarm for the time `at`, to a pid; or, when name is not NULL, to the process that has this local
 * name at that time.  Takes the term, except on failure: ERR_BUSY (LIMIT_TIMERS), ERR_NOMEM. */
int alarm_set(struct isolate *iso, npid ref, int64_t at, npid from, npid to, const char *name,
              struct term *term) MUST_CHECK;

/* Does this isolate have the alarm? */
bool alarm_is_here(const struct isolate *iso, npid ref);

/* Cancels an alarm of this isolate.  Returns the nanoseconds that it had left, or -1 when there is none with
 * this ref, or when its receiver has ended. */
int64_t alarm_cancel(struct isolate *iso, npid ref);

/* The isolate that made the ref, and so has the alarm, if there is one; NULL when there is none, or when it
 * is another node's.  Any thread.  The isolate stays valid. */
struct isolate *alarm_owner(struct vm *vm, npid ref);

/* Handles a signal to a ref, which vm_deliver has brought to the ref's isolate: a CALL "cancel_timer" is
 * answered by [true, nanoseconds left], or by [false, …] when there is no such alarm.  Consumes the signal.
 */
void alarm_call(struct isolate *iso, struct signal *s);

/* Sends the alarm whose timer is t, and frees it. */
void alarm_fire(struct isolate *iso, struct timer *t);

/* Frees up to n alarms of a list of those that a process has set for itself; returns how many. */
int alarm_drop(struct isolate *iso, struct alarm **list, int n);

/* Moves such a list to another place, which is overwritten. */
void alarm_move(struct alarm **from, struct alarm **to);

/* Frees all alarms of an isolate that closes. */
void alarm_drop_all(struct isolate *iso);

#endif
