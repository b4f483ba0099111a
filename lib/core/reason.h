/* reason: why a process ended: a term of one value, [reason].  Erlang's words ("normal", "kill", "noproc" …),
 * the two forms that the end of a command has, {"exit", n} and {"signal", n}, and the exit status of the
 * shell that each of them stands for.  Any thread. */
#ifndef CORE_REASON_H
#define CORE_REASON_H

#include "core/term.h"

/* [word]: a new reference; NULL when memory ran out. */
struct term *reason_word(const char *word);

/* The reason of a command that ended with an exit status, or by a signal (0: by none): ["normal"] for status
 * 0, else [["exit", status]] or [["signal", signal]].  A new reference; NULL when memory ran out. */
struct term *reason_exit(int64_t status, int signal);

/* The exit status that a reason (NULL: unknown) stands for, as shells and timeout(1) have them: "normal" 0,
 * {"exit", n} n, {"signal", n} 128+n, "timeout" 124, "noconnection" 125, "kill" and "killed" 137, "shutdown"
 * 143, anything else 1. */
int reason_status(const struct term *reason);

#endif
