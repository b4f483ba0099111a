/* names: a table of process names, shared by all threads of a node.  One such table holds the node's local
 * names, another the cluster's global ones: there every entry also carries the token of its registration.
 * A reader takes a shared lock, a writer an exclusive one; entries are copied out, never lent. */
#ifndef CORE_NAMES_H
#define CORE_NAMES_H

#include "base/err.h"
#include "core/npid.h"

#include <stdbool.h>
#include <stdint.h>

struct names;

enum { NAMES_MAX = 1 << 20, NAMES_OF_ONE_MAX = 1024 };

struct names *names_new(void); /* NULL when memory ran out */
void names_free(struct names *n);

/* Who has the name, or NPID_NONE; *token (may be NULL) gets the registration's token. */
npid names_whereis(struct names *n, const char *name, uint64_t *token);

/* Changes whenever anything in the table does; an answer of names_whereis holds until then. */
uint64_t names_version(const struct names *n);

/* Gives pid the name.  ERR_NAME_TAKEN when another has it (or pid itself, as in Erlang), ERR_BUSY when the
 * table is full or pid has NAMES_OF_ONE_MAX, ERR_NOMEM; names_refusal says that in words. */
int names_register(struct names *n, const char *name, npid pid, uint64_t token) MUST_CHECK;
const char *names_refusal(int code);

/* Gives pid the name whoever has it, and however many pid has; *before (may be NULL) gets who had it, or
 * NPID_NONE. */
int names_replace(struct names *n, const char *name, npid pid, uint64_t token, npid *before) MUST_CHECK;

/* Takes the name away; false when nobody had it.  With token != 0 only that registration goes. */
bool names_unregister(struct names *n, const char *name, uint64_t token);

/* Calls fn for each entry under the shared lock; fn must not call back into the table. */
void names_each(struct names *n, void (*fn)(void *data, const char *name, npid pid, uint64_t token),
                void *data);

/* Takes away every name of the pid (names_drop) or of every pid of an incarnation (names_drop_node); calls
 * gone (may be NULL) for each after the lock is released.  Returns how many went. */
typedef void names_gone(void *data, const char *name, npid pid, uint64_t token);
size_t names_drop(struct names *n, npid pid, names_gone *gone, void *data);
size_t names_drop_node(struct names *n, uint32_t incarnation, names_gone *gone, void *data);

size_t names_count(struct names *n);

#endif
