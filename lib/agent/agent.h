/* agent: a node.  It has one I/O thread, the caller's, with a libuv loop on which everything in lib/agent
 * runs, and the scheduler threads of the vm.  Nothing in lib/agent blocks once agent_run has begun, and
 * nothing there runs user code.
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/config.h"
#include "base/err.h"

#include <jansson.h>

struct agent;

/* Makes the node: takes its name on this host (ERR_NAME_TAKEN when a node of that name runs), binds its
 * socket and port, and starts its schedulers. On failure nothing remains. config and what it points to must
 * outlive the agent. ERR_SYSTEM where the system refuses, as for lack of descriptors; the errors of
 * runtime_init. */
int agent_new(const struct agent_config *config, struct agent **out, struct error *e) MUST_CHECK;

/* Logs "one@rane ready: …" for the user. To be called once agent_new has returned. */
void agent_announce(struct agent *a);

/* The node, for the program that has started it, a new reference: {"node", "ok": true, "os_pid", "creation",
 * "socket"}, "address" and "port" where it listens, "console" where that is a file.  NULL: memory ran out.
 * To be called before agent_run. */
json_t *agent_facts(const struct agent *a);

/* For a node in the background: the log goes to the console file, too, and descriptors 1 and 2 are that file.
 * Waits, for a bounded time, until the terminal has taken what was logged before. */
void agent_detach(struct agent *a);

/* Runs until SIGTERM, SIGINT or a stop request; then stops in order: no new requests, commands ended,
 * links closed. */
void agent_run(struct agent *a);

void agent_free(struct agent *a); /* accepts NULL */

#endif
