/* console: the process that is the node's own output, the group leader of what was spawned without another,
 * and the local name "console".  It writes to descriptor 1 (a terminal, a pipe) or to a file, in libuv's
 * thread pool, one write at a time, so that a slow terminal or a full disk holds up nobody.  I/O thread only.
 */
#ifndef AGENT_PROCESS_CONSOLE_H
#define AGENT_PROCESS_CONSOLE_H

#include "agent/state.h"

enum {
  CONSOLE_HIGH = 4 << 20, /* with more bytes pending, calls "flush" wait, and so their callers */
  CONSOLE_MAX = 64 << 20, /* what would make more bytes pending is dropped, and logged */
};

int console_init(struct agent *a, struct error *e) MUST_CHECK;

/* Has everything been written? */
bool console_idle(const struct agent *a);

#endif
