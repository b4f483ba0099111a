/* terminal: the terminal of this program while a command uses it as its own: raw mode, so that every key goes
 * to the line discipline of the command's terminal, the size and its changes, and the escapes.
 *
 * The mode is restored however the program ends, by exit or by a signal, except SIGKILL.  One at a time. */
#ifndef CMD_TERMINAL_H
#define CMD_TERMINAL_H

#include "tool.h"

#include <sys/ioctl.h>

struct terminal;

/* The size of the terminal on standard input; 24 rows of 80 columns where it does not know its size. */
struct winsize terminal_size(void);

/* Starts raw mode, and a thread that tells the command `pid` the size: when it changes, and now if it is not
 * `told`.  common and node are how the node is reached (borrowed); `after` (borrowed) tells what becomes of
 * the command when the user leaves.  Call it before other threads are started: it blocks the signals that the
 * thread takes. */
struct terminal *terminal_start(const struct tool *tool, const struct tool_common *common, const char *node,
                                const char *pid, struct winsize told, const char *after);

/* Takes an event of the stream of the command.  When that says that the command was stopped, as by Ctrl-Z,
 * the terminal's thread stops this program, too, and once it is continued in the foreground, sets the mode
 * and the size again and continues the command.  Returns at once. */
void terminal_take(struct terminal *t, const json_t *event);

/* Takes n bytes that were typed.  Acts on the escapes, and stores what goes to the command in out, which has
 * room for n + 1 bytes; returns how many that are.  Only one thread may call it. */
size_t terminal_type(struct terminal *t, const char *typed, size_t n, char *out);

/* Restores the mode, for good.  Any thread; may be called again; nothing happens without a terminal_start. */
void terminal_restore(void);

/* terminal_restore, ends the thread, and frees t.  Accepts NULL. */
void terminal_stop(struct terminal *t);

#endif
