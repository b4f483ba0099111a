/* rundir: the runtime directory, which holds a directory for each node of this user on this host, with the
 * node's socket and lock.  This module finds the directory and checks who owns it.  Any thread.
 *
 * A user who can write to the runtime directory could replace the socket of a node by another.  So the
 * runtime directory, and each directory in it, must be a directory (no symbolic link) that belongs to this
 * user or root, and that nobody else may write to.
 *
 * RUNDIR_SYSTEM belongs to root, and all may read it.  For a system service that runs as another user, the
 * service manager makes the directory of the node in it, and gives it to that user: so no user takes the name
 * of another's service.  STATEDIR_SYSTEM (core/statedir.h) is arranged in the same way. */
#ifndef CORE_RUNDIR_H
#define CORE_RUNDIR_H

#include "base/err.h"

#include <stdbool.h>

#define RUNDIR_SYSTEM   "/run/node"
#define STATEDIR_SYSTEM "/var/lib/node-toolkit"

/* Writes the path of the directory for the nodes that this user starts, whether or not it exists, the first
 * of:
 *   $NODE_RUNTIME_DIR
 *   RUNDIR_SYSTEM          for root
 *   $XDG_RUNTIME_DIR/node
 *   /run/user/UID/node     where /run/user/UID belongs to this user
 *   /tmp/node-UID
 * The directory of a login is found without XDG_RUNTIME_DIR, so that a cron job and a login of one user find
 * the same nodes.  ERR_SYSTEM when the path is longer than out. */
int rundir_find(char *out, size_t size, struct error *e) MUST_CHECK;

/* The other directory that may hold nodes of this user, those of system services; NULL: there is none,
 * because rundir_find has found it, or a user has set NODE_RUNTIME_DIR. */
const char *rundir_services(void);

/* 0 when the directory is as it must be, or does not exist.  ERR_PERMISSION, ERR_SYSTEM. */
int rundir_check(const char *path, struct error *e) MUST_CHECK;

/* Makes the directory when it does not exist, with mode 0700, or 0755 for those of the system; else
 * rundir_check. */
int rundir_make(const char *path, struct error *e) MUST_CHECK;

/* Has a process bound the stream socket at this path?  The process does not notice the question, so a service
 * manager that listens there starts nothing. */
bool rundir_socket_held(const char *path);

#endif
