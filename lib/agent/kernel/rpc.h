/* calls: the kernel asks other processes, and is told once: with the values, the error, or the loss of the
 * node or the time.  And the answers to calls it is asked.  I/O thread only. */
#ifndef AGENT_KERNEL_RPC_H
#define AGENT_KERNEL_RPC_H

#include "agent/state.h"
#include "core/signal.h"

enum { RPC_TIMEOUT_MS = 5000 };

/* Runs exactly once.  e is NULL on success; values then stands at the first of the reply's values. */
typedef void rpc_done(void *data, const struct error *e, struct term_reader values);

int rpc_init(struct agent *a) MUST_CHECK;
void rpc_finish(struct agent *a); /* the calls still open end with ERR_LOST */

/* Sends [op, …] = args (consumed, may be NULL after a failed build) to `to`.  timeout_ms 0: as long as it
 * takes.  A failure to send is told through done as well, before rpc_call returns. */
void rpc_call(struct agent *a, npid to, struct term *args, int timeout_ms, rpc_done *done, void *data);

/* A REPLY to the kernel (borrowed). */
void rpc_reply(struct agent *a, const struct signal *s);

/* Fails what is open with a lost node. */
void rpc_node_down(struct agent *a, uint32_t incarnation);

#endif
