/* signals: what each signal does to a green thread.  By the scheduler that runs its isolate. */
#ifndef VM_PROCESS_SIGNALS_H
#define VM_PROCESS_SIGNALS_H

#include "core/signal.h"

struct process;

/* What a signal does to it; consumes the signal. */
void process_signal(struct process *p, struct signal *s);

/* Takes the message that link leads to out of its mailbox; it stays p->taken's until the next one. */
struct signal *process_take(struct process *p, struct signal **link);

#endif
