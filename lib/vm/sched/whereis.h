/* whereis: what an isolate remembers of the tables of names, so that a look-up that finds nothing changed
 * takes neither the table's lock nor a hash.  Zero-initialized; only by the scheduler that runs the isolate.
 */
#ifndef VM_SCHED_WHEREIS_H
#define VM_SCHED_WHEREIS_H

#include "core/names.h"

#include <stddef.h>
#include <stdint.h>

enum { WHEREIS_PLACES = 32, WHEREIS_NAME = 40 };

struct whereis {
  struct whereis_place {
    struct names *table;
    uint64_t version; /* of the table, when it was asked */
    npid pid;
    size_t len;
    char name[WHEREIS_NAME]; /* not terminated */
  } places[WHEREIS_PLACES];
};

/* Who has the name of len bytes, or NPID_NONE.  Fastest when an equal name comes from the same address, as a
 * Lua string does. */
npid whereis_pid(struct whereis *known, struct names *table, const char *name, size_t len);

#endif
