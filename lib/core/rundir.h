/* rundir: the runtime directory, which holds a directory for each node of this user on this host, with the
 * node's socket and lock.  This module finds the directory and checks who owns it.  Any thread.
 *
 * A user who can write to the runtime directory could replace the socket of a node by another.  So the
 * runtime directory, and each directory in it, must be a directory (no symbolic link) that belongs to this
 * user and that nobody else may write to. */
#ifndef CORE_RUNDIR_H
#define CORE_RUNDIR_H

#include "base/err.h"

#include <stdbool.h>

/* Writes the path of the directory, whether or not it exists, the first of:
 *   $NODE_RUNTIME_DIR
 *   /run/node              for root, and for the user that owns it: the user of a system service
 *   $XDG_RUNTIME_DIR/node
 *   /run/user/UID/node     where /run/user/UID belongs to this user
 *   /tmp/node-UID
 * /run/node comes before the directories of a login, and theirs is found without XDG_RUNTIME_DIR, so that a
 * service, a cron job and a login of one user find the same nodes.  ERR_SYSTEM when the path is longer than
 * out. */
int rundir_find(char *out, size_t size, struct error *e) MUST_CHECK;

/* 0 when the directory is as it must be, or does not exist.  ERR_PERMISSION, ERR_SYSTEM. */
int rundir_check(const char *path, struct error *e) MUST_CHECK;

/* Makes the directory, with mode 0700, when it does not exist; then rundir_check. */
int rundir_make(const char *path, struct error *e) MUST_CHECK;

/* Has a process bound the stream socket at this path?  The process does not notice the question, so a service
 * manager that listens there starts nothing. */
bool rundir_socket_held(const char *path);

#endif
