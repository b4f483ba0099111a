/* signals: what each signal does to a green thread.  Called by the scheduler that runs its isolate. */
#ifndef VM_PROCESS_SIGNALS_H
#define VM_PROCESS_SIGNALS_H

#include "core/signal.h"

struct process;

/* Applies a signal to the process; consumes the signal. */
void process_signal(struct process *p, struct signal *s);

/* Removes the message that *link points to from the mailbox, and returns it.  p->taken owns the message until
 * the next one is taken. */
struct signal *process_take(struct process *p, struct signal **link);

/* Tells senders whether the mailbox is full, after its bound has changed (budget.h). */
void process_note_room(struct process *p);

#endif
