/* outcome: asks the home node of a pid what it keeps of a command (agent/process/outcome.h).  I/O thread
 * only.
 */
#ifndef AGENT_API_OUTCOME_H
#define AGENT_API_OUTCOME_H

#include "agent/kernel/rpc.h"

/* Calls done with the MAP of the command, or with the error ERR_NO_PROCESS.  output: the MAP has the last
 * output. */
void outcome_ask(struct agent *a, npid pid, bool output, rpc_done *done, void *data);

#endif
