/* agent: a node.  One I/O thread (this one) with a libuv loop, on which everything of this directory runs,
 * and the vm's scheduler threads.  Nothing here blocks once agent_run has begun; nothing here runs user code.
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/config.h"
#include "base/err.h"

struct agent;

/* Makes the node: takes its name on this host (ERR_NAME_TAKEN when a node of that name runs), binds its
 * socket and port, starts its schedulers.  On failure nothing is left behind. All pointers of config must
 * outlive the agent. */
int agent_new(const struct agent_config *config, struct agent **out, struct error *e) MUST_CHECK;

/* "one@rane ready: …": what to tell the user once agent_new has returned. */
const char *agent_banner(const struct agent *a);

/* Runs until SIGTERM, SIGINT, SIGHUP or a stop request; then stops in order: no new requests, commands ended,
 * links closed. */
int agent_run(struct agent *a, struct error *e) MUST_CHECK;

void agent_free(struct agent *a); /* accepts NULL */

#endif
