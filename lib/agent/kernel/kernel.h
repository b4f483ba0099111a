/* kernel: the system process of a node, number 0 of every pid table: it answers the calls of vm.h, from green
 * threads here and from other nodes.  I/O thread only. */
#ifndef AGENT_KERNEL_H
#define AGENT_KERNEL_H

#include "agent/kernel/rpc.h"
#include "agent/state.h"
#include "core/signal.h"

/* Handles a signal (consumed) to the kernel. */
void kernel_signal(struct agent *a, struct signal *s);

/* Calls the kernel of `node`, connecting to it first if needed (NULL: this node). args is [op, …], consumed
 * (NULL: memory ran out). done runs as in rpc_call. */
void kernel_ask(struct agent *a, const char *node, struct term *args, int timeout_ms, rpc_done *done,
                void *data);

/* Ends the subscriptions of processes to nodeup and nodedown, when the node ends. */
void kernel_finish(struct agent *a);

#endif
