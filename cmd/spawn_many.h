/* spawn_many: node-spawn on several nodes at once.
 *
 * One thread runs all jobs.  A node is asked through the local node, or directly when no node runs here.
 * Memory of a node is constant, whatever its command prints (cmd/harvest.h).  Main thread only. */
#ifndef CMD_SPAWN_MANY_H
#define CMD_SPAWN_MANY_H

#include "select.h"
#include "spawn_request.h"

/* Runs the request on each selected node, and returns the exit status.  m: the node that passes the requests
 * on; NULL: each node is reached directly.  A signal that has interrupted the run ends the program. */
int spawn_many(const struct tool *tool, const struct spawn_options *options, const struct selection *nodes,
               struct nodemsg *m, json_t *request);

/* What a failure is, in one or two words: "unreachable", "refused", "cannot run", …. */
const char *spawn_failure_kind(int rc);

/* The status that node-spawn ends with after a failure: 124 to 127 when it is attached to a command, else the
 * error's own. */
int spawn_failure_status(const struct spawn_options *options, int rc);

#endif
