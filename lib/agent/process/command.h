/* command: an operating-system command as a process. Its output goes to its group leader as messages
 * (core/output.h); the strings of a message to it are written to its standard input; its exit status or
 * signal becomes its exit reason (reason_exit). An exit signal, and the deadline of the command, send TERM,
 * and "kill_after" of its spec (5 s by default) later KILL, to the command and all processes below it; at
 * the deadline the reason is "timeout".  I/O thread only. */
#ifndef AGENT_PROCESS_COMMAND_H
#define AGENT_PROCESS_COMMAND_H

#include "agent/state.h"
#include "core/signal.h"

enum {
  /* Bytes of output that a command may be ahead of its leader, and of its followers: more is read once they
   * have answered a call "flush". */
  COMMAND_OUTPUT_WINDOW = 1 << 20,
  /* With more bytes pending for its standard input, senders that can wait are suspended; above LIMIT_STDIN
   * messages from other senders are dropped, and logged. */
  COMMAND_STDIN_HIGH = 1 << 20,
};

/* Starts the command of a call ["spawn" | "exec", MAP] (vm.h); the reader `spec` stands at the MAP, and
 * `user` at the value of its key "user"; NULL: it has none.  Consumes the call, which is answered once the
 * command runs or has failed to start. */
void command_spawn(struct agent *a, struct signal *call, struct term_reader spec,
                   const struct term_reader *user);

/* Sends every command an exit signal with the reason "shutdown". */
void commands_stop(struct agent *a);

/* Bytes that wait for standard inputs: for the one for which most wait, and for all.  Takes time for each
 * hosted process. */
struct commands_input {
  int64_t longest, waiting;
};
struct commands_input commands_input(struct agent *a);

/* True when a command still runs, or orphans that a command has left behind (orphans.h). */
bool commands_left(const struct agent *a);

/* With "keep" in its spec, the processes that a command leaves behind live on, and its guard with them. Lets
 * go of these guards when the node ends. */
void commands_forget_kept(struct agent *a);

/* Sets *pids to a heap array, in no order, of the guards that were not yet waited for. 0 or ERR_NOMEM. */
int commands_pids(struct agent *a, pid_t **pids, size_t *count) MUST_CHECK;

#endif
