/* idtab: a table from 64-bit ids that mostly come in a row to pointers.  Neighbours among the ids are
 * neighbours in memory, so a walk over many of them costs few cache misses; in a map each entry is a miss. An
 * id without neighbours takes about 200 bytes, one among its neighbours about 12.  One owner, no locking. */
#ifndef BASE_IDTAB_H
#define BASE_IDTAB_H

#include "base/map.h"

struct idtab {
  struct map pages; /* id / IDTAB_PAGE -> struct idtab_page */
  size_t len;       /* entries */
};

enum { IDTAB_PAGE = 16 };

/* Frees the table, but not the values. */
void idtab_finish(struct idtab *t);

/* The value under an id, or NULL. */
void *idtab_get(const struct idtab *t, uint64_t id);

/* Stores a value (not NULL) under an id that has none.  0 or ERR_NOMEM. */
int idtab_put(struct idtab *t, uint64_t id, void *value) __attribute__((warn_unused_result));

/* Removes the id and returns its value, or NULL when there was none. */
void *idtab_remove(struct idtab *t, uint64_t id);

/* Visits each value in no order: start with *at = 0; NULL after the last one.  The table must not change in
 * between. */
void *idtab_next(const struct idtab *t, size_t *at);

#endif
