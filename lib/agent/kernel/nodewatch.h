/* nodewatch: the processes that have called node.monitor_nodes, and what they are told: ("nodeup", node) and
 * ("nodedown", node, reason).  They may be as many as there are processes, so each event is one term for all
 * of them, and goes to NODEWATCH_BATCH of them a turn of the loop.  A process gets the events in their order,
 * from its call on. I/O thread only. */
#ifndef AGENT_KERNEL_NODEWATCH_H
#define AGENT_KERNEL_NODEWATCH_H

#include "agent/state.h"
#include "base/err.h"

enum { NODEWATCH_BATCH = 1000 };

/* Subscribes a process, unless it is subscribed.  The kernel monitors it.  0 or ERR_NOMEM. */
int nodewatch_add(struct agent *a, npid pid) MUST_CHECK;

/* Ends the subscription of a process.  ended: the process has ended, so the kernel's monitor has fired. */
void nodewatch_remove(struct agent *a, npid pid, bool ended);

/* Ends all subscriptions; the loop runs once more before the agent is freed. */
void nodewatch_finish(struct agent *a);

#endif
