/* joblog: the file that keeps how a command ended on each node, for --retry-failed.
 *
 * A JSON object a line, appended: {"nodes":[…],"time":…} when a run begins, with all selected nodes, and one
 * for each node as it ends, with "node", "ok" and how it ended.  A node that has no line has failed: it was
 * not started, or the tool was killed.  Main thread only. */
#ifndef CMD_JOBLOG_H
#define CMD_JOBLOG_H

#include "select.h"

#include <stdio.h>

/* Opens the file, and appends the line of a run with these nodes. */
int joblog_open(const char *path, const struct selection *nodes, FILE **out, struct error *e) MUST_CHECK;

/* Appends the line of a node. */
int joblog_put(FILE *log, const json_t *object, struct error *e) MUST_CHECK;

/* Stores in *out the nodes of the last run in the file that have not ended with "ok": words that live as long
 * as the program.  ERR_SYSTEM, ERR_BAD_JSON. */
int joblog_failed(const char *path, struct tool_words *out, struct error *e) MUST_CHECK;
void joblog_words_finish(struct tool_words *words);

#endif
