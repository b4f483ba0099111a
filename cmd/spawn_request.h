/* spawn_request: the options of node-spawn, and the request that they mean (POST /v1/processes). */
#ifndef CMD_SPAWN_REQUEST_H
#define CMD_SPAWN_REQUEST_H

#include "select.h"
#include "terminal.h"
#include "tool.h"

struct spawn_options {
  struct tool_common common;                  /* its operands: the NODEs; its rest: the words after "--" */
  const char *code, *file, *function, *shell; /* at most one is set; none: rest is the command */
  const char *directory, *name, *global, *user, *nice, *umask, *limit, *priority;
  struct tool_words env;
  bool detach, full, input, keep_children, tty, events;
  struct winsize size; /* of the terminal, when the request was made */
  double kill_after;   /* seconds; below 0: the node's own */
  /* on several nodes */
  struct select_options select;
  int64_t width, rolling; /* 0: as many as there are */
  int64_t max_fail;       /* -1: any number */
  double pause;
  bool gather, fail_fast;
  const char *outdir, *require, *joblog, *retry;
};

/* spawn_is_plain: is no option set that is for several nodes?  spawn_is_single: is that so, and does the
 * command line name at most one node?  Then there is no selection. */
bool spawn_is_plain(const struct spawn_options *options);
bool spawn_is_single(const struct spawn_options *options);

/* Is the output kept, to be printed at the end as a part of one object for the node (--json)? */
bool spawn_is_harvest(const struct spawn_options *options);

/* Do the options mean a command?  Else they mean Lua code. */
bool spawn_is_command(const struct spawn_options *options);

/* How many seconds after the deadline the end of the process arrives at the latest: the tool waits for that,
 * so that the last output is printed, and gives up on a node that is frozen. */
double spawn_last_words(const struct spawn_options *options);

/* Tells, on standard error, that a limit on memory was reached, and how many processes that a command had
 * left behind were ended with it. `event` is the last line of its stream. */
void spawn_report_outcome(const struct tool *tool, const char *who, const json_t *event);

/* The body of the request, without the member "node": a new reference.  Exits with a usage error when the
 * options contradict each other. */
json_t *spawn_request(const struct tool *tool, struct spawn_options *options);

#endif
