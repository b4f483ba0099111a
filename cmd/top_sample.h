/* top_sample: what node-top shows of a node: how much it and its processes have done since they were looked
 * at last.
 *
 * A node is read from GET /metrics, its processes from GET /v1/processes.  The *load* of a node is the
 * processor time that it has used since the last sample (at first: since its start), as a fraction of one
 * core; that of a green thread the time that it has run. */
#ifndef CMD_TOP_SAMPLE_H
#define CMD_TOP_SAMPLE_H

#include "select.h"

#include "base/map.h"

#include <stdint.h>

/* The shells complete the words between the '|' of an argument in -h. */
#define TOP_SORT_KEYS "load|memory|mailbox|time"
enum top_sort { TOP_LOAD, TOP_MEMORY, TOP_MAILBOX, TOP_TIME, TOP_SORTS };

extern const char *const top_sorts[TOP_SORTS]; /* the words */

/* Which processes are kept of a sample, and in which order. */
struct top_view {
  enum top_sort sort;
  char filter[128]; /* a text that one of the words of a process has, in letters of either case; "": all */
};

/* A node that is looked at.  One thread at a time. */
struct top_node {
  const struct tool_common *common; /* its timeout is that of one sample */
  const struct selected *node;
  int64_t sampled_ns; /* when the last sample was taken; 0: there is none, */
  double busy;        /* and the processor time that it had used then, in seconds */
  struct map ran;     /* number of a green thread → for how long it had run then, in milliseconds */
  bool local;         /* it runs here, so that short pids mean its processes */
};

struct top_sample {
  json_t *node; /* "node", "load", "memory", "processes", "commands", "links", "mailbox", "oldest_ms",
                   "uptime_ms" */
  json_t *rows; /* processes, as of GET /v1/processes, with "node", and "load" of green threads; sorted */
};

enum { TOP_ROWS = 1000 }; /* processes that a sample keeps, those that come first */

/* Takes a sample.  On failure *out is untouched. */
int top_sample(struct top_node *n, const struct top_view *view, struct top_sample *out,
               struct error *e) MUST_CHECK;
void top_sample_finish(struct top_sample *s);

void top_node_finish(struct top_node *n);

/* Sorts an array of processes, or of nodes, as a view wants. */
void top_arrange(json_t *rows, enum top_sort sort);

#endif
