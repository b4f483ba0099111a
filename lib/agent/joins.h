/* joins: waits for the first attempt at each node of --join, for a starter that is told how it went
 * (agent_watch_joins in agent.h).  I/O thread only. */
#ifndef AGENT_JOINS_H
#define AGENT_JOINS_H

struct agent;

enum { JOINS_LOOK_MS = 20, JOINS_WAIT_MS = 2000, JOINS_TOLD_MAX = 16 };

/* Begins to wait, after the last mesh_join. */
void joins_start(struct agent *a);

#endif
