/* census: the kernel's call "processes": asks every process of this node for its "info", and answers with the
 * replies of all of them. I/O thread only. */
#ifndef AGENT_KERNEL_CENSUS_H
#define AGENT_KERNEL_CENSUS_H

#include "agent/state.h"
#include "core/signal.h"

enum { CENSUS_MAX = 10000, CENSUS_TIMEOUT_MS = 2000 };

/* ["processes", limit] -> truncated (boolean: there are more than limit), the time of this node's clock in
 * ns, LIST of [pid, MAP].  A process that ends meanwhile, or does not answer within CENSUS_TIMEOUT_MS, is
 * left out.  Consumes the call. */
void census_op(struct agent *a, struct signal *call, struct term_reader args);

#endif
