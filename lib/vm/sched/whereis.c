/* Invariant: a place whose version is the present one of its table holds the answer of the table.  The
 * version is read before the look-up: if the table changes in between, the place has an old version with a
 * new answer, so that the next use looks the name up once more than needed. */
#include "vm/sched/whereis.h"

#include <string.h>

npid whereis_pid(struct whereis *known, struct names *table, const char *name, size_t len) {
  struct whereis_place *at = &known->places[(uintptr_t)name / 16 % WHEREIS_PLACES];
  uint64_t version = names_version(table);
  if (at->version == version && at->table == table && at->len == len && memcmp(at->name, name, len) == 0)
    return at->pid;
  npid pid = memchr(name, '\0', len) ? NPID_NONE : names_whereis(table, name, NULL);
  if (len > sizeof at->name) return pid;
  *at = (struct whereis_place){table, version, pid, len, ""};
  memcpy(at->name, name, len);
  return pid;
}
