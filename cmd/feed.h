/* feed: our standard input as a command's, on a thread of its own, over a connection of its own. */
#ifndef CMD_FEED_H
#define CMD_FEED_H

#include "tool.h"

struct feed;

/* Begins to feed the command pid through m, which it takes over: also when it fails, and *out is untouched.
 */
int feed_start(const struct tool *tool, struct nodemsg *m, const char *pid, struct feed **out,
               struct error *e) MUST_CHECK;

/* The command has ended: what is still to come is not read any more.  Accepts NULL. */
void feed_stop(struct feed *f);

#endif
