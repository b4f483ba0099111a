/* joins: connects to the nodes that --join names (core/jointarget.h), and tells a starter how the first
 * attempt at each went.  I/O thread only. */
#ifndef AGENT_JOINS_H
#define AGENT_JOINS_H

#include "base/err.h"

struct agent;

enum { JOINS_LOOK_MS = 20, JOINS_WAIT_MS = 2000, JOINS_TOLD_MAX = 16 };
enum { JOINS_START = 250 }; /* pieces of an errand that the start of a --join counts as */

/* Reads the texts of the agent's configuration; after the loop and the mesh are made.  ERR_BAD_NODE,
 * ERR_NOMEM. */
int joins_init(struct agent *a, struct error *e) MUST_CHECK;

/* Has `told` called with a sentence for each node of --join that was not reached at the first attempt, or
 * within JOINS_WAIT_MS, and for each name in DNS and file that names none, for at most JOINS_TOLD_MAX of
 * them, and then once with NULL.  To be called before joins_start. */
void joins_watch(struct agent *a, void (*told)(void *data, const char *text), void *data);

void joins_start(struct agent *a);

/* Closes its handles, and connects to nothing more; free after the loop has run to its end.  Both do nothing
 * where joins_init has not run. */
void joins_stop(struct agent *a);
void joins_free(struct agent *a);

#endif
