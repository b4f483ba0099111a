/* statedir: the state directory, which holds a directory for each node of this user on this host, with what
 * outlives the node and a restart of the host: its console file, and the counter of its starts
 * (core/creation.h).  This module finds the directory and checks who owns it, by the rules of core/rundir.h.
 * Any thread. */
#ifndef CORE_STATEDIR_H
#define CORE_STATEDIR_H

#include "base/err.h"

#include <stddef.h>

/* Writes the path of the directory, whether or not it exists: $NODE_STATE_DIR, else
 * $XDG_STATE_HOME/node-toolkit, else /var/lib/node-toolkit for root, else ~/.local/state/node-toolkit.
 * ERR_SYSTEM when the path is longer than out, or there is no home directory. */
int statedir_find(char *out, size_t size, struct error *e) MUST_CHECK;

/* Makes the directory of a node in the state directory, with mode 0700, and the missing directories above it;
 * writes its path to out. ERR_PERMISSION, ERR_SYSTEM. */
int statedir_make(const char *node, char *out, size_t size, struct error *e) MUST_CHECK;

#endif
