/* spawn_request: the options of node-spawn, and the request that they mean (POST /v1/processes). */
#ifndef CMD_SPAWN_REQUEST_H
#define CMD_SPAWN_REQUEST_H

#include "tool.h"

struct spawn_options {
  struct tool_common common; /* its operands: at most one NODE; its rest: the words after "--" */
  const char *code, *file, *function, *shell; /* at most one is set; none: rest is the command */
  const char *directory, *name;
  struct tool_words env;
  bool detach, full, input;
};

/* Do the options mean a command?  Else they mean Lua code. */
bool spawn_is_command(const struct spawn_options *options);

/* The body of the request, without the member "node": a new reference.  Exits with a usage error when the
 * options contradict each other. */
json_t *spawn_request(const struct tool *tool, const struct spawn_options *options);

#endif
