/* flow: who sends to a process that has no room waits, on another node as on this one.
 *
 * When a message from another node meets such a process, its node tells the sender's: "hold", pid; and once
 * there is room, or the process is gone, "room", pid.  In between, that node's green threads and its shell
 * wait (vm_lack).  I/O thread only. */
#ifndef AGENT_KERNEL_FLOW_H
#define AGENT_KERNEL_FLOW_H

#include "agent/state.h"
#include "core/signal.h"

int flow_init(struct agent *a) MUST_CHECK;
void flow_free(struct agent *a); /* before the vm */

/* A message that the node `from` has sent to a process of this one, before it is delivered. */
void flow_arrived(struct agent *a, uint32_t from, npid to);

/* Answers a call, with nothing, once there is room for more at a process of this node, or it is gone. */
void flow_answer(struct agent *a, struct signal *call, npid to);

/* The signal ROOM of a process that lacked it. */
void flow_room(struct agent *a, npid pid);

/* What was told it, and what it told, is void. */
void flow_node_down(struct agent *a, uint32_t incarnation);

/* The calls of the kernel: ["hold" | "room", pid], the pid being one of the caller's node. */
void flow_op_hold(struct agent *a, struct signal *call, struct term_reader args);
void flow_op_room(struct agent *a, struct signal *call, struct term_reader args);

#endif
