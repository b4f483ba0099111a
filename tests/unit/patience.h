/* patience: lets a test wait for an event without a time limit of its own, and ends it when it hangs.  Main
 * thread only. */
#ifndef TESTS_UNIT_PATIENCE_H
#define TESTS_UNIT_PATIENCE_H

#include <uv.h>

/* Starts a timer of the loop, which the test closes at its end; when it fires before, the test has failed. */
void patience_begin(uv_timer_t *patience, uv_loop_t *loop, uint64_t ms);

/* Runs the loop for so long: for what must not happen. */
void patience_pass(uv_loop_t *loop, uint64_t ms);

#endif
