/* outputs: the sinks (base/sink.h) for the log and the console of a node: two, or one when both go to the
 * same place. The log goes to descriptor 2, the console to descriptor 1 or to the console file. I/O thread
 * only; nothing here blocks, except outputs_detach and outputs_finish, which wait for a bounded time. */
#ifndef AGENT_OUTPUTS_H
#define AGENT_OUTPUTS_H

#include "agent/state.h"
#include "base/sink.h"

struct metrics;

enum {
  /* How long a node that stops waits for a terminal, pipe or file that takes no bytes. */
  OUTPUT_LAST_MS = 1000,
};

/* Makes the sinks for descriptors 1 and 2, with the bounds LIMIT_LOG and LIMIT_CONSOLE: bytes beyond them are
 * dropped and counted, and a line says so. ERR_NOMEM, ERR_SYSTEM. */
int outputs_init(struct agent *a, struct error *e) MUST_CHECK;

/* Opens config->console_file, if there is one.  ERR_NOMEM, ERR_SYSTEM. */
int outputs_open_file(struct agent *a, struct error *e) MUST_CHECK;

/* Sends the log to the console file, too, and makes descriptors 1 and 2 that file. Does nothing without a
 * console file. */
void outputs_detach(struct agent *a);

/* The statistics of the log and of the console; of their one sink, when they share one. */
struct sink_stats outputs_stats(const struct agent *a);
void outputs_metrics(const struct agent *a, struct metrics *out);

/* True when everything is written, or when no byte has been taken for OUTPUT_LAST_MS, counted from since_ns
 * (clock_ns) at the earliest. */
bool outputs_settled(const struct agent *a, int64_t since_ns);

/* Ends both sinks; bytes that are not taken in time are dropped. Nothing can be logged afterwards. Accepts
 * what outputs_init left. */
void outputs_finish(struct agent *a);

#endif
