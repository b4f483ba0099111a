/* identity: looks up the user as whom a command runs, in the user database of the host, which may be on
 * another host and not answer.
 *
 * The C library cannot stop a look-up, so each has a thread of its own, and at most LIMIT_USERS run at a
 * time; requests for a name that is being looked up share the look-up. A request ends with ERR_TIMEOUT when
 * the database has not answered IDENTITY_TIMEOUT_MS after the first of those that share the look-up, and the
 * end of the node waits for none. I/O thread only. */
#ifndef AGENT_PROCESS_IDENTITY_H
#define AGENT_PROCESS_IDENTITY_H

#include "agent/state.h"

struct identity {
  char *ids; /* "UID:GID[,GID…]": the user, its group, and its other groups; for node-guard */
  char *name, *home, *shell;
  bool root; /* the user is root */
};

/* identity_copy: NULL, memory ran out.  identity_free accepts NULL.  Any thread. */
struct identity *identity_copy(const struct identity *i);
void identity_free(struct identity *i);

enum { IDENTITY_TIMEOUT_MS = 10000 };

/* Runs once, with an identity (borrowed), or NULL and the error (ERR_BAD_VALUE, ERR_TIMEOUT, ERR_SYSTEM,
 * ERR_NOMEM).  When the node ends, `found` runs with NULL and ERR_LOST; a->stopping is set then. */
typedef void identity_found(void *data, const struct identity *identity, const struct error *e);

/* Looks for the user of this name (length n).  `found` runs later.  Returns 0, or a code with *e set, and
 * found never runs: ERR_PERMISSION when the node does not run as root; ERR_BUSY when LIMIT_USERS other
 * names are being looked up; ERR_BAD_VALUE, ERR_NOMEM. */
int identity_find(struct agent *a, const char *name, size_t n, identity_found *found, void *data,
                  struct error *e) MUST_CHECK;

/* How many users are being looked up. */
int64_t identities_count(const struct agent *a);

/* Ends all requests.  The loop must run once more after it. */
void identities_finish(struct agent *a);

#endif
