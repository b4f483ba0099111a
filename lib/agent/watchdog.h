/* watchdog: a thread that looks whether the I/O thread or a scheduler was held for more than 100 ms (base/
 * holds.h): by a callback of the loop, by one call into C, by a file that does not answer.  Such holds are
 * counted, and logged with who did it; the log gets at most a few lines at a time.
 *
 * watchdog_init, _start, _stop and _turns by the I/O thread; watchdog_counts by any. */
#ifndef AGENT_WATCHDOG_H
#define AGENT_WATCHDOG_H

#include "base/err.h"

#include <stdint.h>

struct agent;
struct watchdog;

/* Begins to measure the turns of the loop.  0 or an error of libuv; frees itself in watchdog_free. */
int watchdog_init(struct agent *a) MUST_CHECK;

/* Starts the thread, after vm_start.  ERR_SYSTEM. */
int watchdog_start(struct agent *a, struct error *e) MUST_CHECK;

/* Ends the thread, before vm_stop.  Accepts a node without one. */
void watchdog_stop(struct agent *a);
void watchdog_free(struct agent *a); /* when the loop has closed all handles */

struct watchdog_counts {
  int64_t loop, schedulers;                /* holds since the start */
  int64_t loop_longest, scheduler_longest; /* nanoseconds */
};
void watchdog_counts(struct agent *a, struct watchdog_counts *out);

/* How much processor time turns of the loop have taken.  I/O thread. */
struct holds_turns;
const struct holds_turns *watchdog_turns(const struct agent *a);

#endif
