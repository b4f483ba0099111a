/* local: the nodes that run on this host for this user, found in the runtime directory (core/rundir.h).
 *
 * Each node has a directory there, named by its full name; a node is running for as long as the file `lock`
 * in it is locked (flock) by its agent.  What else lies there, left by a node that was killed, means nothing.
 * Nothing is shared: any thread. */
#ifndef CLIENT_LOCAL_H
#define CLIENT_LOCAL_H

#include "base/err.h"

#include <jansson.h>

/* The full names of the running nodes, sorted: a JSON array, in *out. ERR_PERMISSION, ERR_NOMEM. */
int local_nodes(json_t **out, struct error *e) MUST_CHECK;

/* Which of the running nodes is meant: wanted is a full name, or its part before '@'; NULL or "" stands for
 * the only one. *out is a heap string.  ERR_NO_AGENT, ERR_AMBIGUOUS (e lists them). */
int local_choose(const char *wanted, char **out, struct error *e) MUST_CHECK;

/* The path of a node's socket: a heap string, or NULL with e set. */
char *local_socket(const char *node, struct error *e);

#endif
