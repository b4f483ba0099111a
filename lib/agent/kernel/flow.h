/* flow: flow control between nodes. A sender is suspended while the receiver has no room, whether the
 * receiver is on another node or on this one.
 *
 * When a message from another node arrives for a process that has no room, this node sends the call ["hold",
 * pid] to that node's kernel, and ["room", pid] once there is room or the process has ended. In between, that
 * node suspends its green threads and tools that send to the process (vm_lack). I/O thread only. */
#ifndef AGENT_KERNEL_FLOW_H
#define AGENT_KERNEL_FLOW_H

#include "agent/state.h"
#include "core/signal.h"

#include <sys/queue.h>

struct jam;

int flow_init(struct agent *a) MUST_CHECK;
void flow_free(struct agent *a); /* after errands_finish, before the vm */

/* To be called before a message from the node `from` (an incarnation) is delivered to the process `to` of
 * this node: sends "hold" when the process has no room. */
void flow_arrived(struct agent *a, uint32_t from, npid to);

/* At most so many nodes and calls, or waits (flow_await), of which each may send a thousand messages, are
 * told of room in a turn of the loop. */
enum { FLOW_ANSWERS = 500, FLOW_WAITS = 2 };

/* Answers a call (consumed), without values, once the process `to` of this node has room or has ended; at
 * once when it already has.  The oldest calls are answered first, in slices: where they have filled the
 * process again, the others wait on. */
void flow_answer(struct agent *a, struct signal *call, npid to);

/* A part of this node that waits until a process, of this node or another, has room; the caller's storage,
 * zeroed before its first use. */
struct flow_wait {
  TAILQ_ENTRY(flow_wait) in_list;
  struct jam *jam; /* NULL: the wait is over */
  void (*ready)(void *data);
  void *data;
};

/* ERR_BUSY: the process has no room; ready(data) runs once when it may have, or has ended, or its node is
 * lost, for the oldest wait first, unless flow_leave or flow_free comes first.  0, also when memory runs out:
 * no wait was made. */
int flow_await(struct agent *a, npid to, struct flow_wait *w, void (*ready)(void *data),
               void *data) MUST_CHECK;
void flow_leave(struct flow_wait *w); /* nothing, where the wait is over */

/* Handles the signal ROOM to the kernel: the process has room again, or has ended. */
void flow_room(struct agent *a, npid pid);

/* Handles the loss of a connection to a node, which has ended in the table of nodes: ends the holds on
 * processes of the node that came by it, in later turns of the loop where there are many. */
void flow_node_down(struct agent *a, uint32_t incarnation, uint32_t epoch);

/* Handle the calls "hold" and "room" (consumed) of another node: the pid in args must be of a process of that
 * node. */
void flow_op_hold(struct agent *a, struct signal *call, struct term_reader args);
void flow_op_room(struct agent *a, struct signal *call, struct term_reader args);

#endif
