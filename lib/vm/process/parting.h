/* parting: what is left to do for a process that has ended: the signals to those that it was linked to, that
 * watched it and that it watched; and the memory of its messages and alarms.  A process may have a million of
 * each, so its isolate does this in steps, between which other processes run.
 *
 * A parting keeps the number of the process, so that no new process gets its pid before the last signal, and
 * counts in `live` of the isolate.  Called by the scheduler that runs the isolate. */
#ifndef VM_PROCESS_PARTING_H
#define VM_PROCESS_PARTING_H

#include "core/term.h"

#include <stdbool.h>

struct isolate;
struct process;

/* The process has ended: takes its ties, messages, alarms and number, and makes the first step.  Owns the
 * reason. */
void parting_begin(struct process *p, struct term *reason);

/* Makes a step of the oldest parting.  To be called while iso->partings.first is not NULL. */
void parting_step(struct isolate *iso);

/* Frees all partings of an isolate that closes, without a signal to anybody. */
void parting_drop_all(struct isolate *iso);

#endif
