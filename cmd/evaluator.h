/* evaluator: runs Lua code on a node, in a process that share/node/shell.lua starts, and receives its
 * answers, its output, and the output of the processes that it starts.
 *
 * It holds two connections: one for requests, and one for the stream of a mailbox, which a thread of its own
 * reads. All functions are for the main thread. */
#ifndef CMD_EVALUATOR_H
#define CMD_EVALUATOR_H

#include "tool.h"

struct evaluator;

/* Starts the process.  Fails as connecting to the node does, or when the node has no module "shell". */
int evaluator_open(const struct tool *tool, const struct tool_common *common, struct evaluator **out,
                   struct error *e) MUST_CHECK;
/* Ends the process; the processes that it has started go on.  Accepts NULL. */
void evaluator_close(struct evaluator *ev);

const char *evaluator_node(const struct evaluator *ev);

/* These functions send requests.  Each answer carries the number of its request.  view: how a prompt shows
 * values (shell.lua), or NULL; evaluator_run takes the reference. */
int evaluator_run(struct evaluator *ev, int number, const char *code, size_t len, const char *chunk,
                  json_t *view, struct error *e) MUST_CHECK;
int evaluator_complete(struct evaluator *ev, int number, const char *line, size_t len,
                       struct error *e) MUST_CHECK;
int evaluator_interrupt(struct evaluator *ev, struct error *e) MUST_CHECK;

/* A descriptor that is readable (poll) while there is something to take. */
int evaluator_fd(const struct evaluator *ev);

/* Takes the oldest message, if there is one.  Returns 1 and a new reference in *out: ["stdout"|"stderr", pid,
 * bytes], or the answer ["shell", number, what, …] that shell.lua documents; 0 when no message is there; or
 * the error that ended the stream. */
int evaluator_take(struct evaluator *ev, json_t **out, struct error *e) MUST_CHECK;

#endif
