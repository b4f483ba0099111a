/* command: an operating-system command as a process: its output goes to its group leader as messages
 * ("stdout" | "stderr", pid, bytes), what it is sent is written to its stdin, its end is its exit reason:
 * "normal" for status 0, {"exit", n}, {"signal", n}.  An exit signal ends it with TERM and, COMMAND_GRACE_MS
 * later, KILL, to all its processes.  I/O thread only. */
#ifndef AGENT_PROCESS_COMMAND_H
#define AGENT_PROCESS_COMMAND_H

#include "agent/state.h"
#include "core/signal.h"

enum {
  COMMAND_GRACE_MS = 5000,
  COMMAND_STDIN_HIGH = 1 << 20, /* while more bytes wait to be read by it, its senders wait */
  COMMAND_STDIN_MAX = 16 << 20, /* beyond, what comes from those who do not is lost, and logged */
};

/* Starts the command of a ["spawn", spec] call (vm.h), spec being the MAP that `spec` stands at; consumes the
 * call.  The reply follows once it runs, or could not. */
void command_spawn(struct agent *a, struct signal *call, struct term_reader spec);

/* Asks every command to end. */
void commands_stop(struct agent *a);
bool commands_left(const struct agent *a);

#endif
