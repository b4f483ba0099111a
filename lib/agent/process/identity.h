/* identity: looks up the user as whom a command runs, in the user database of the host, which may be on
 * another host.  I/O thread only; the look-up itself runs in libuv's pool. */
#ifndef AGENT_PROCESS_IDENTITY_H
#define AGENT_PROCESS_IDENTITY_H

#include "agent/state.h"

struct identity {
  char *ids; /* "UID:GID[,GID…]": the user, its group, and its other groups; for node-guard */
  char *name, *home, *shell;
  bool root; /* the user is root */
};

/* Runs once, with an identity that the callee takes over (identity_free), or NULL and the error
 * (ERR_PERMISSION, ERR_BAD_VALUE, ERR_SYSTEM, ERR_NOMEM).  When the node is stopping, `found` may run while
 * the loop is closed: a->stopping is set then. */
typedef void identity_found(void *data, struct identity *identity, const struct error *e);

/* Looks for the user of this name (length n).  `found` runs later; it also runs later when the look-up cannot
 * begin.  Returns 0, or a code with *e set, and found never runs: ERR_PERMISSION when the node does not run
 * as root. */
int identity_find(struct agent *a, const char *name, size_t n, identity_found *found, void *data,
                  struct error *e) MUST_CHECK;

void identity_free(struct identity *identity); /* accepts NULL */

#endif
