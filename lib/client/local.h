/* local: the nodes that run on this host for this user.
 *
 * In the runtime directories (core/rundir.h) each node has a directory, which has the node's full name.  A
 * node counts if its directory is this user's or root's.  The node runs as long as its agent holds the lock
 * (flock) on the file `lock` in it; the directory alone may be left from a node that was killed.  A service
 * manager may listen on the socket of a node that does not run, and start it for the first connection: such a
 * node is found by its name alone. Any thread. */
#ifndef CLIENT_LOCAL_H
#define CLIENT_LOCAL_H

#include "base/err.h"

#include <jansson.h>

/* Stores the full names of the running nodes, sorted, as a JSON array in *out.  ERR_PERMISSION, ERR_SYSTEM,
 * ERR_NOMEM. */
int local_nodes(json_t **out, struct error *e) MUST_CHECK;

/* Chooses a running node: `wanted` is its full name, or the part before '@'; NULL or "" stands for the only
 * running node.  Where none runs that is wanted, one counts that a service manager starts, as it does by
 * this. *out is a string that the caller frees.  ERR_NO_AGENT: there is no such node.  ERR_BAD_NODE: there is
 * none, and there cannot be.  ERR_AMBIGUOUS: there are several, and *e lists them.  And the errors of
 * local_nodes. */
int local_choose(const char *wanted, char **out, struct error *e) MUST_CHECK;

/* The path of a node's socket, which the caller frees; NULL with *e set when it cannot be made. */
char *local_socket(const char *node, struct error *e);

#endif
