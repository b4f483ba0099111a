/* top_watch: samples several nodes again and again, each on a thread of its own, so that a node that does not
 * answer delays no other.
 *
 * The threads last until the program ends.  Main thread only. */
#ifndef CMD_TOP_WATCH_H
#define CMD_TOP_WATCH_H

#include "top_sample.h"

struct top_watch;

/* Begins to sample.  A node rests for `delay` seconds between two samples, and at least four times as long as
 * the last one took.  The common options and the nodes are borrowed. */
struct top_watch *top_watch_start(const struct tool_common *common, const struct selection *nodes,
                                  const struct top_view *view, double delay);

/* A descriptor that is readable when there is something new; top_watch_take makes it unreadable. */
int top_watch_fd(const struct top_watch *w);

/* Stores new arrays: the nodes, and the processes of all nodes, both sorted.  A node that cannot be sampled
 * has the members "node" and "error", and no processes. */
void top_watch_take(struct top_watch *w, json_t **nodes, json_t **rows);

/* From now on samples are for this view; the next one is taken at once. */
void top_watch_set_view(struct top_watch *w, const struct top_view *view);

/* Kills a process, a row that top_watch_take gave.  What became of it is the next message. */
void top_watch_kill(struct top_watch *w, const json_t *row);

/* The last message, a heap string, once; NULL: there is none. */
char *top_watch_message(struct top_watch *w);

#endif
