/* top_screen: the full-screen form of node-top, on ncurses: nodes above, processes below, a line for
 * questions and messages.
 *
 * The terminal is restored however the program ends, by exit or by a signal, except SIGKILL. */
#ifndef CMD_TOP_SCREEN_H
#define CMD_TOP_SCREEN_H

#include "table.h"
#include "top_watch.h"

struct top_screen {
  const struct tool *tool;
  const struct tool_common *common;
  const struct table *nodes, *processes; /* their columns */
  struct top_watch *watch;
  struct top_view view;
};

/* Can this terminal show it?  ERR_USAGE: *e says why not. */
int top_screen_check(struct error *e) MUST_CHECK;

/* Takes the signals that end or stop this program, and sets the character set that the user's environment
 * names; before threads are started. */
void top_screen_prepare(void);

/* Shows the screen until the user leaves, and restores the terminal. */
void top_screen_run(struct top_screen *s);

#endif
