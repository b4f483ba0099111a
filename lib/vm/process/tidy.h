/* tidy: gives back the memory of ended processes of an isolate: drops pooled processes beyond need, collects
 * what nobody owns, and returns free chunks to the kernel.  Called by the scheduler that runs the isolate.
 *
 * Work is due TIDY_DELAY_NS after much memory has become unused (at once while the node is short of memory),
 * so that a crowd of processes that comes again at once finds it still there.  An isolate without a ready
 * process then works in steps, between which it looks at its inbox; a busy one does a step in each slice. */
#ifndef VM_PROCESS_TIDY_H
#define VM_PROCESS_TIDY_H

#include <stdbool.h>
#include <stdint.h>

struct isolate;

enum { TIDY_DELAY_NS = 50000000, TIDY_LEAST = 4 << 20 };

/* When the isolate is to be woken for it (clock_ns); TIMER_NEVER: nothing is due. */
int64_t tidy_at(struct isolate *iso);

/* Is a step due now? */
bool tidy_is_due(struct isolate *iso);

/* Makes a collection due at once, if the isolate holds more than TIDY_LEAST. */
void tidy_now(struct isolate *iso);

/* Does a part of the work, about 0.1 ms. */
void tidy_step(struct isolate *iso);

#endif
