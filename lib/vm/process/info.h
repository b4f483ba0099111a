/* info: what a process tells of itself.  By the scheduler that runs its isolate. */
#ifndef VM_PROCESS_INFO_H
#define VM_PROCESS_INFO_H

#include "core/term.h"

#include <stdbool.h>

struct process;

/* [true, MAP], the answer to an "info" call; with everything, to "process_info". */
struct term *process_info(struct process *p, bool everything);

#endif
