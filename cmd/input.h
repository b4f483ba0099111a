/* input: sends the standard input of this program to the standard input of a command on a node, on a thread
 * and a connection of its own. */
#ifndef CMD_INPUT_H
#define CMD_INPUT_H

#include "terminal.h"
#include "tool.h"

struct input;

enum input_end {
  INPUT_CLOSE, /* the end of this program closes the standard input of the command */
  INPUT_LEAVE, /* only the end of our standard input does */
};

/* Starts to send standard input to the command `pid` through m.  terminal (borrowed; NULL: standard input is
 * sent byte for byte) acts on the escapes that are typed.  Takes m over, also when it fails; *out is
 * untouched then. */
int input_start(const struct tool *tool, struct nodemsg *m, const char *pid, enum input_end end,
                struct terminal *terminal, struct input **out, struct error *e) MUST_CHECK;

/* Stops reading standard input, and waits for the thread.  Call it when the command has ended.  Accepts NULL.
 */
void input_stop(struct input *in);

#endif
