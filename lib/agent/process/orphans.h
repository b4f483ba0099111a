/* orphans: processes that commands have left behind because their guard was killed.
 *
 * The guard of a command (cmd/node-guard.c) ends every process below it, except when SIGKILL ends the guard.
 * Such processes then become children of the agent, because the agent is their next subreaper. I/O thread
 * only. */
#ifndef AGENT_PROCESS_ORPHANS_H
#define AGENT_PROCESS_ORPHANS_H

#include "agent/state.h"

enum { ORPHANS_TICK_MS = 50, ORPHANS_TRIES = 200 };

/* Makes the agent a subreaper. a->orphans must be an initialised timer; its data becomes the agent. */
void orphans_init(struct agent *a);

/* Call this when SIGKILL has ended a guard or its command. Sends SIGKILL to every child of the agent that is
 * not the guard of a command, and reaps it; looks again after ORPHANS_TICK_MS, because the children of such a
 * process become children of the agent in turn, until none is left, but ORPHANS_TRIES times at most. */
void orphans_look(struct agent *a);

bool orphans_left(const struct agent *a); /* true when another look is due */

#endif
