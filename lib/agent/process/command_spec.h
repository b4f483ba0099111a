/* plan: the spec of a command (vm.h: "exec") as uv_spawn wants it.  I/O thread only. */
#ifndef AGENT_PROCESS_COMMAND_SPEC_H
#define AGENT_PROCESS_COMMAND_SPEC_H

#include "agent/state.h"
#include "core/term.h"

struct command_spec {
  char **argv;  /* the guard's words first */
  size_t first; /* of the command's own */
  char **env;   /* NULL: the agent's */
  char *cwd;
  bool with_stdin;
  npid leader, link, watcher, watch_ref;
  npid owner; /* it ends as this one does */
  int64_t timeout_ms;
  char name[256];
};

/* Reads the MAP that spec stands at. A command that another process runs (by_process) has a stdin to be sent
 * to; one from the shell has it when it asks. On failure too, command_spec_finish is due. ERR_USAGE,
 * ERR_BAD_VALUE, ERR_BAD_NAME, ERR_NOMEM. */
int command_spec_read(struct agent *a, bool by_process, struct term_reader spec, struct command_spec *out,
                      struct error *e) MUST_CHECK;
void command_spec_finish(struct command_spec *p);

/* For people: the command's words with blanks between them; heap, or NULL. */
char *command_spec_words(const struct command_spec *p);

#endif
