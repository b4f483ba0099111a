/* interrupt: what Ctrl-C (SIGINT) does while this program is attached to a command: the first one is handed
 * on to the command, the second one has the node end the command (TERM, then KILL), the third one ends this
 * program.  The requests are made on a thread and a connection of its own. */
#ifndef CMD_INTERRUPT_H
#define CMD_INTERRUPT_H

#include "tool.h"

struct interrupt;

/* Begins to catch SIGINT for the command `pid`, which runs on `node` (NULL: the node that the options name).
 * NULL when SIGINT is ignored, as in the background, or no thread can be made: nothing is then caught.  All
 * threads that are made later have SIGINT blocked. */
struct interrupt *interrupt_start(const struct tool *tool, const struct tool_common *common, const char *node,
                                  const char *pid);

/* Ends that; the main thread calls it when the command has ended.  Returns how many signals came.  Accepts
 * NULL. */
int interrupt_stop(struct interrupt *in);

/* Ends this program by the signal, so that a loop of the shell ends, too. */
void interrupt_die(int signal);

#endif
