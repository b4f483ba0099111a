/* info: the facts that node-ps and process_info show of a green thread.  Called by the scheduler that runs
 * its isolate. */
#ifndef VM_PROCESS_INFO_H
#define VM_PROCESS_INFO_H

#include "core/term.h"

#include <stdbool.h>

struct process;

/* [true, MAP]: the answer to the call "info" or, with everything, to "process_info".  NULL when memory ran
 * out. */
struct term *process_info(struct process *p, bool everything);

/* The words for an enum process_state and an enum process_priority.  Any thread. */
const char *process_state_word(unsigned state);
const char *process_priority_word(unsigned priority);

#endif
