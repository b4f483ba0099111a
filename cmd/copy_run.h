/* copy_run: runs the copies of node-copy: one for each pair of a sending and a receiving end.
 *
 * An end is node-files(cmd/node-files.c) on a node, as an attached command, or a process of this program on
 * this host.  The tool passes the frames of each end to the other, reads in passing what it reports, and
 * holds at most FILES_CREDIT bytes of a copy.  Main thread only. */
#ifndef CMD_COPY_RUN_H
#define CMD_COPY_RUN_H

#include "files_wire.h"
#include "select.h"
#include "tool.h"

struct copy_options {
  struct tool_common common;
  struct select_options select;
  bool checksum, remove, dry, verbose;
  int64_t width;
};

/* One end: paths[count] on a node, or on this host when node is NULL. */
struct copy_end {
  const struct selected *node;
  char *const *paths;
  size_t count;
};

struct copy_plan {
  struct copy_end from, to;     /* `to` has one path */
  bool several;                 /* each source goes into the destination under its own name */
  const struct selected *label; /* the node that messages of this copy name */
};

/* Runs the copies, and returns the exit status: the highest of them.  m: the node that passes requests on;
 * NULL: each node is reached directly. */
int copy_run(const struct tool *tool, const struct copy_options *options, const struct copy_plan *plans,
             size_t count, struct nodemsg *m);

#endif
