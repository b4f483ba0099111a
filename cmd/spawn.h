/* spawn: what node-spawn does, between its option table and its end. */
#ifndef CMD_SPAWN_H
#define CMD_SPAWN_H

#include "tool.h"

struct spawn_options {
  struct tool_common common;
  const char *code, *file, *function, *shell; /* at most one; none: the command after "--" */
  const char *directory, *name;
  struct tool_words env;
  bool detach, full, input;
};

/* The body of the request that starts the process (but for its node), from options that belong together:
 * exits with a usage error when they do not. */
json_t *spawn_request(const struct tool *tool, const struct spawn_options *options);

/* Opens the way: through the local node, where the request gets its "node", or straight to it. */
int spawn_open(const struct spawn_options *options, json_t *request, struct nodemsg **out,
               struct error *e) MUST_CHECK;

/* Both return the exit status, failures being told on stderr. */
int spawn_detached(const struct tool *tool, const struct spawn_options *options, struct nodemsg *m,
                   json_t *request);
int spawn_attached(const struct tool *tool, const struct spawn_options *options, struct nodemsg *m,
                   json_t *request);

/* Tells the failure, and returns its exit status: for an attached command 124 to 127, as env(1) and
 * timeout(1) have them; else that of the error. */
int spawn_failed(const struct tool *tool, const struct spawn_options *options, int rc, const struct error *e);

#endif
