/* outputs: where the log and the console of a node go: two sinks (base/sink.h), or one where both go to one
 * place.  The log goes to descriptor 2, the console to descriptor 1 or to the console file.  I/O thread only;
 * nothing here blocks, except outputs_detach and outputs_finish, which wait for a bounded time. */
#ifndef AGENT_OUTPUTS_H
#define AGENT_OUTPUTS_H

#include "agent/state.h"

enum {
  OUTPUT_LOG_MAX = 1 << 20, /* bytes of log lines that wait; further lines are dropped, counted and told */
  OUTPUT_LAST_MS = 1000, /* a node that stops waits so long for a terminal, pipe or file that takes nothing */
};

/* For descriptors 1 and 2.  ERR_NOMEM, ERR_SYSTEM. */
int outputs_init(struct agent *a, struct error *e) MUST_CHECK;

/* Opens config->console_file, if there is one.  ERR_NOMEM, ERR_SYSTEM. */
int outputs_open_file(struct agent *a, struct error *e) MUST_CHECK;

/* The log goes to the console file, too, and descriptors 1 and 2 are that file.  Does nothing without one. */
void outputs_detach(struct agent *a);

/* Is everything written, or has nothing been taken for OUTPUT_LAST_MS, since_ns (clock_ns) at the earliest?
 */
bool outputs_settled(const struct agent *a, int64_t since_ns);

/* Ends both; what nobody takes is abandoned.  Nothing is logged any more.  Accepts what outputs_init left. */
void outputs_finish(struct agent *a);

#endif
