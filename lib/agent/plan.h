/* plan: the spec of a command (vm.h: "exec") as uv_spawn wants it.  I/O thread only. */
#ifndef AGENT_PLAN_H
#define AGENT_PLAN_H

#include "agent/state.h"
#include "core/term.h"

struct plan {
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
 * to; one from the shell has it when it asks. On failure too, plan_finish is due. ERR_USAGE, ERR_BAD_VALUE,
 * ERR_BAD_NAME, ERR_NOMEM. */
int plan_read(struct agent *a, bool by_process, struct term_reader spec, struct plan *out,
              struct error *e) MUST_CHECK;
void plan_finish(struct plan *p);

/* For people: the command's words with blanks between them; heap, or NULL. */
char *plan_words(const struct plan *p);

#endif
