/* rpc: calls that the kernel makes, to kernels of other nodes and to processes of this one.  Each ends
 * exactly once: with the values of the reply, with its error, or with the loss of the node, a timeout or the
 * end of this node.  I/O thread only. */
#ifndef AGENT_KERNEL_RPC_H
#define AGENT_KERNEL_RPC_H

#include "agent/state.h"
#include "core/signal.h"

enum {
  RPC_TIMEOUT_MS = 5000,
  RPC_LOSS = 40 /* how many pieces of an errand the end of a lost call counts as */
};

/* Runs exactly once. e is NULL on success; values is then at the first value of the reply. */
typedef void rpc_done(void *data, const struct error *e, struct term_reader values);

int rpc_init(struct agent *a) MUST_CHECK;
void rpc_finish(struct agent *a); /* after errands_finish; the calls still open end with ERR_LOST */

/* Sends args, [op, …] (consumed; NULL: memory ran out), to the process `to`.  timeout_ms 0: without a
 * timeout.  When the call cannot be sent, done runs with the error before rpc_call returns. */
void rpc_call(struct agent *a, npid to, struct term *args, int timeout_ms, rpc_done *done, void *data);

/* Handles a REPLY (borrowed) to the kernel. */
void rpc_reply(struct agent *a, const struct signal *s);

/* Ends the open calls to a lost node with ERR_LOST, in later turns of the loop where there are many. A call
 * that begins after rpc_node_down, also from `done` of one of these, goes by the next connection. */
void rpc_node_down(struct agent *a, uint32_t incarnation);

#endif
