/* whereis: an isolate's cache of look-ups in the tables of names.  A look-up in a table that has not changed
 * takes no lock and computes no hash.  Zero-initialized.  Only the scheduler that runs the isolate calls
 * these functions. */
#ifndef VM_SCHED_WHEREIS_H
#define VM_SCHED_WHEREIS_H

#include "core/names.h"

#include <stddef.h>
#include <stdint.h>

enum { WHEREIS_PLACES = 32, WHEREIS_NAME = 40 };

struct whereis {
  struct whereis_place {
    struct names *table;
    uint64_t version; /* of the table at the look-up */
    npid pid;
    size_t len;
    char name[WHEREIS_NAME]; /* not terminated */
  } places[WHEREIS_PLACES];
};

/* The pid that has the name of len bytes in the table, or NPID_NONE.  name[len] must be 0, as in a Lua
 * string: a look-up in the table reads the name as a C string.  A name with a NUL in it belongs to no
 * process.  The place in the cache is chosen by the address of the name: equal Lua strings (short ones) have
 * the same address. */
npid whereis_pid(struct whereis *known, struct names *table, const char *name, size_t len);

#endif
