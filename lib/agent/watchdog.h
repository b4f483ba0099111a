/* watchdog: a thread that looks whether the I/O thread or a scheduler was held for more than 100 ms (base/
 * holds.h): by a callback of the loop, by one call into C, by a file that does not answer.  Such holds are
 * counted, and logged with who did it; the log gets at most a few lines at a time.  It rests while the node
 * does: then it looks four times a second instead of forty times.
 *
 * watchdog_init, _start, _stop and _metrics by the I/O thread, watchdog_wake by any. */
#ifndef AGENT_WATCHDOG_H
#define AGENT_WATCHDOG_H

#include "base/err.h"

struct agent;
struct metrics;
struct watchdog;

/* Begins to measure the turns of the loop.  To be called before other prepare handles of the loop are
 * started: libuv runs the one that was started first last, and no work may begin after it.  0 or an error of
 * libuv; frees itself in watchdog_free. */
int watchdog_init(struct agent *a) MUST_CHECK;

/* Starts the thread, after vm_start.  ERR_SYSTEM. */
int watchdog_start(struct agent *a, struct error *e) MUST_CHECK;

/* Around each turn of the loop, by the thread that runs it. */
void watchdog_begin_turn(struct agent *a);
void watchdog_end_turn(struct agent *a);

/* A scheduler is awake, or a thread has taken over the loop: a watchdog that rests looks again.  Costs one
 * load of memory otherwise. */
void watchdog_wake(struct agent *a);

/* Ends the thread, before vm_stop.  Accepts a node without one. */
void watchdog_stop(struct agent *a);
void watchdog_free(struct agent *a); /* when the loop has closed all handles */

/* Writes the metrics of holds, and of how much processor time turns of the loop have taken. */
void watchdog_metrics(struct agent *a, struct metrics *out);

#endif
