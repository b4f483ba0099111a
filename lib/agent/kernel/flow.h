/* flow: flow control between nodes.  A sender waits while the receiver has no room, on another node as on
 * this one.
 *
 * When a message from another node arrives for a process that has no room, this node sends the call ["hold",
 * pid] to that node's kernel, and ["room", pid] once there is room or the process has ended.  In between,
 * green threads and tools of that node that send to the process wait (vm_lack).  I/O thread only. */
#ifndef AGENT_KERNEL_FLOW_H
#define AGENT_KERNEL_FLOW_H

#include "agent/state.h"
#include "core/signal.h"

int flow_init(struct agent *a) MUST_CHECK;
void flow_free(struct agent *a); /* before the vm */

/* A message from the node `from` (an incarnation) is about to be delivered to the process `to` of this node.
 */
void flow_arrived(struct agent *a, uint32_t from, npid to);

/* Answers a call (consumed), without values, once the process `to` of this node has room or has ended: at
 * once when that is so already. */
void flow_answer(struct agent *a, struct signal *call, npid to);

/* The kernel got the signal ROOM: the process has room again, or has ended. */
void flow_room(struct agent *a, npid pid);

/* A node is lost: nothing more is told to it, and what it has told of its processes is void. */
void flow_node_down(struct agent *a, uint32_t incarnation);

/* The calls "hold" and "room" of another node (consumed): the pid in args is a process of that node. */
void flow_op_hold(struct agent *a, struct signal *call, struct term_reader args);
void flow_op_room(struct agent *a, struct signal *call, struct term_reader args);

#endif
