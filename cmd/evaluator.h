/* evaluator: code run by a process of a node (share/node/shell.lua), and what comes back: its output, that of
 * the processes it has started, and answers.
 *
 * Two connections: one for requests, one whose stream is read by a thread.  All calls by one thread. */
#ifndef CMD_EVALUATOR_H
#define CMD_EVALUATOR_H

#include "tool.h"

struct evaluator;

/* Starts it.  ERR_… as the stage fails, or the node has no such module. */
int evaluator_open(const struct tool *tool, const struct tool_common *common, struct evaluator **out,
                   struct error *e) MUST_CHECK;
/* Ends it: the process goes, and those it has started stay.  Accepts NULL. */
void evaluator_close(struct evaluator *ev);

const char *evaluator_node(const struct evaluator *ev);

/* Requests.  Answers come with the number that was given. */
int evaluator_run(struct evaluator *ev, int number, const char *code, size_t len, const char *chunk,
                  struct error *e) MUST_CHECK;
int evaluator_complete(struct evaluator *ev, int number, const char *line, size_t len,
                       struct error *e) MUST_CHECK;
int evaluator_interrupt(struct evaluator *ev, struct error *e) MUST_CHECK;

/* Readable (poll) when there is something to take. */
int evaluator_fd(const struct evaluator *ev);

/* What has come, the oldest first: 1 and a new reference in *out: ["stdout"|"stderr", pid, bytes], or
 * ["shell", number, what, …] as shell.lua has them; 0 when there is nothing now; or why no more will come. */
int evaluator_take(struct evaluator *ev, json_t **out, struct error *e) MUST_CHECK;

#endif
