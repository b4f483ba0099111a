/* runtime: a node's place on its host: its directory, its name (held by a lock, so that a name is free the
 * moment its node is dead), its socket, and the port it listens on. */
#ifndef AGENT_RUNTIME_H
#define AGENT_RUNTIME_H

#include "agent/state.h"

struct runtime;

/* Takes the name and binds both sockets: *unix_fd and *tcp_fd are then the caller's.  Fills a->address,
 * a->port; note (size bytes) gets what the user should know, or "". ERR_NAME_TAKEN, ERR_SYSTEM, ERR_RESOLVE,
 * ERR_BUSY. */
int runtime_init(struct agent *a, int *unix_fd, int *tcp_fd, char *note, size_t size,
                 struct error *e) MUST_CHECK;

/* Takes the socket away and lets go of the name. */
void runtime_finish(struct agent *a);

#endif
