/* names: a table from process names to pids.  A node has two: one of its local names, and one of the
 * cluster's global names, where each entry also has the token of its registration.  Any thread: readers take
 * a shared lock, writers an exclusive one, and results are copies. */
#ifndef CORE_NAMES_H
#define CORE_NAMES_H

#include "base/err.h"
#include "core/limits.h"
#include "core/npid.h"

#include <stdbool.h>
#include <stdint.h>

struct names;

struct names *names_new(void); /* NULL when memory ran out */

/* Gives the table its bounds, LIMIT_NAMES and LIMIT_NAMES_OF_ONE (borrowed); without them it has the
 * defaults. */
void names_bound(struct names *n, struct limits *limits);
void names_free(struct names *n);

/* The pid that has the name, or NPID_NONE.  *token (unless NULL) gets the token of the registration. */
npid names_whereis(struct names *n, const char *name, uint64_t *token);

/* One of the names of a pid, the one that it was given last, as a NUL-terminated string in out; false, with
 * out unchanged, when the pid has none, or the name is longer than out. */
bool names_of(struct names *n, npid pid, char *out, size_t size);

/* A number that changes with each change of the table.  An answer of names_whereis stays right until then. */
uint64_t names_version(const struct names *n);

/* Registers pid under the name.  ERR_NAME_TAKEN: another process has the name, or pid itself has it (as in
 * Erlang). ERR_BUSY: the table is full, or pid has as many names as a process may have.  ERR_NOMEM.
 * names_refusal is the sentence that explains the code. */
int names_register(struct names *n, const char *name, npid pid, uint64_t token) MUST_CHECK;
enum { NAMES_REFUSAL_SIZE = 128 };
const char *names_refusal(const struct names *n, int code, char out[NAMES_REFUSAL_SIZE]);

/* Registers pid under the name, also when another process has the name; the caller keeps the bounds.  *before
 * (unless NULL) gets the pid that had the name, or NPID_NONE.  ERR_NOMEM: nothing has changed.
 *
 * Entries with the same `hidden` (unless NULL) are a group that can be hidden at once: from
 * names_hide(hidden) on, no reader finds an entry of the group, while they are removed one by one.  *hidden
 * is the caller's, false at first; it is changed by names_hide alone, and stays valid until the last entry of
 * the group has been removed or replaced. */
int names_replace(struct names *n, const char *name, npid pid, uint64_t token, const bool *hidden,
                  npid *before) MUST_CHECK;
void names_hide(struct names *n, bool *hidden);

/* Removes the name; with a token other than 0, only if it is that registration's.  False: nothing was
 * removed. */
bool names_unregister(struct names *n, const char *name, uint64_t token);

/* Calls fn for each entry, with the shared lock held: fn must not use the table. */
void names_each(struct names *n, void (*fn)(void *data, const char *name, npid pid, uint64_t token),
                void *data);

/* A visit of the table in steps, between which it may change: an entry that exists all the while is visited
 * once, the oldest first; one that is added or removed meanwhile may be.  The caller's storage, used by one
 * thread. names_walk visits up to max entries as names_each does, and is false after the last one. */
struct names_walk {
  struct names_entry *at;
  struct names_walk *next, **pprev;
};
void names_walk_begin(struct names *n, struct names_walk *w);
bool names_walk(struct names *n, struct names_walk *w, size_t max,
                void (*fn)(void *data, const char *name, npid pid, uint64_t token), void *data);
void names_walk_end(struct names *n, struct names_walk *w);

/* Removes all names of a pid, and returns how many. */
size_t names_drop(struct names *n, npid pid);

size_t names_count(struct names *n);

#endif
