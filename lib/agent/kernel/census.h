/* census: what every process of this node says of itself: the kernel's call "processes".  I/O thread only. */
#ifndef AGENT_KERNEL_CENSUS_H
#define AGENT_KERNEL_CENSUS_H

#include "agent/state.h"
#include "core/signal.h"

enum { CENSUS_MAX = 10000, CENSUS_TIMEOUT_MS = 2000 };

/* ["processes", limit] -> truncated (boolean), this node's clock in ns, LIST of [pid, MAP]; who ends
 * meanwhile is left out. Consumes the call. */
void census_op(struct agent *a, struct signal *call, struct term_reader args);

#endif
