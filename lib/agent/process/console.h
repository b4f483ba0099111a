/* console: the process that is the node's own output, the group leader of processes that were spawned without
 * another leader, and registered under the local name "console". It writes what commands print in whole
 * lines, each with the time (UTC) and the pid, and what other processes print as it is. It puts what it is
 * sent into agent->output, a sink (base/sink.h) whose own thread writes to a terminal, a pipe or a file. I/O
 * thread only. */
#ifndef AGENT_PROCESS_CONSOLE_H
#define AGENT_PROCESS_CONSOLE_H

#include "agent/state.h"

enum {
  CONSOLE_BEGUN = 8192, /* lines whose end has not come; beyond that, a part of a line is written as a line */
  CONSOLE_LINE = 4096,  /* bytes of a line of a command; a longer one is written as several */
  CONSOLE_HIGH = 4 << 20, /* with more bytes waiting, calls "flush" are not answered, so their callers wait.
                             Output that would make more bytes wait than LIMIT_CONSOLE is dropped and counted,
                             and a line says so */
};

enum { CONSOLE_LOST = 10 }; /* pieces of an errand that the lines of a lost command count as */

int console_init(struct agent *a, struct error *e) MUST_CHECK;

/* Answers the calls "flush" when there is room.  Runs when agent->room was sent. */
void console_drained(struct agent *a);

#endif
