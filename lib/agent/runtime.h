/* runtime: a node's place on its host: its directory in the runtime directory (core/rundir.h), its name, its
 * unix socket and its port. A file lock holds the name, so the name is free again as soon as the node has
 * ended, even when it was killed. */
#ifndef AGENT_RUNTIME_H
#define AGENT_RUNTIME_H

#include "agent/state.h"

/* Takes the name, and binds the unix socket and the port; where config->socket_fd is given, it is the unix
 * socket instead.  *unix_fd and *tcp_fd are then the caller's.  Fills a->address and a->port; note (size
 * bytes) gets a sentence that the user should see, or "".  ERR_NAME_TAKEN (a node of this name runs, or a
 * service manager listens on its socket), ERR_PERMISSION, ERR_RESOLVE, ERR_TCP, ERR_COOKIE, ERR_USAGE,
 * ERR_BUSY, ERR_SYSTEM.  The caller calls runtime_finish even after a failure. */
int runtime_init(struct agent *a, int *unix_fd, int *tcp_fd, char *note, size_t size,
                 struct error *e) MUST_CHECK;

/* The path of the unix socket. */
const char *runtime_socket(const struct agent *a);

/* Removes the socket and releases the name. */
void runtime_finish(struct agent *a);

#endif
