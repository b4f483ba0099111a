/* alarm: a message that is sent later, for send_after.  Belongs to the isolate of the process that set it,
 * not to the process: it goes off even if that one has ended.  One whose receiver, a pid, has ended is
 * cancelled, as in Erlang. */
#ifndef VM_PROCESS_ALARM_H
#define VM_PROCESS_ALARM_H

#include "base/err.h"
#include "core/npid.h"
#include "core/term.h"
#include "vm/sched/timers.h"

struct isolate;
struct process;
struct signal;
struct vm;

/* To a pid or, when name is not NULL, to whoever has the local name then.  Takes the term; on failure it is
 * still yours. */
int alarm_set(struct isolate *iso, npid ref, int64_t at, npid from, npid to, const char *name,
              struct term *term) MUST_CHECK;

/* The nanoseconds it had left, or -1 when there is no such alarm here, or nobody any more to whom it goes. */
int64_t alarm_cancel(struct isolate *iso, npid ref);

/* The isolate that has the alarm, or NULL: it went off, was cancelled, or is another node's.  Any thread.  By
 * the time one looks there the alarm may be gone, the isolate is not. */
struct isolate *alarm_owner(struct vm *vm, npid ref);

/* CALL "cancel_timer" to a ref, which vm_deliver brings to its isolate: [true, nanoseconds left], or [false,
 * …] when it is gone.  Consumes the signal. */
void alarm_call(struct isolate *iso, struct signal *s);

/* Its time has come. */
void alarm_fire(struct isolate *iso, struct timer *t);

/* Forgets those that a process, which ends, has set for itself. */
void alarm_drop(struct process *p);

/* Forgets all. */
void alarm_drop_all(struct isolate *iso);

#endif
