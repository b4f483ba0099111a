#include "tap.h"

#include "base/idtab.h"

#include <string.h>

enum { IDS = 1000 };

static int values[IDS];

/* Ids in a row from 5 on, and others that have a page each. */
static uint64_t id_of(int i) {
  return i < IDS / 2 ? 5 + (uint64_t)i : (uint64_t)i << 40;
}

static bool visits_each(const struct idtab *t, int first) {
  bool seen[IDS] = {false};
  int n = 0, *value;
  for (size_t at = 0; (value = idtab_next(t, &at));) {
    long i = value - values;
    if (i < first || seen[i]) return false;
    seen[i] = true;
    n++;
  }
  return n == IDS - first;
}

int main(void) {
  struct idtab t = {.len = 0};
  bool good = true;
  ok(!idtab_get(&t, 0) && !idtab_remove(&t, 7) && visits_each(&t, IDS), "an empty table has nothing");
  for (int i = 0; i < IDS; i++) good = good && !idtab_put(&t, id_of(i), &values[i]);
  ok(good && t.len == IDS, "%d values are stored", IDS);
  for (int i = 0; i < IDS; i++) good = good && idtab_get(&t, id_of(i)) == &values[i];
  ok(good && !idtab_get(&t, 4) && !idtab_get(&t, id_of(1) << 41), "and found, and no others");
  ok(visits_each(&t, 0), "each is visited once");
  for (int i = 0; i < IDS / 2 - 3; i++) good = good && idtab_remove(&t, id_of(i)) == &values[i];
  ok(good && t.len == IDS / 2 + 3 && !idtab_get(&t, 5), "removed ones are gone");
  ok(visits_each(&t, IDS / 2 - 3), "the others are visited");
  for (int i = IDS / 2 - 3; i < IDS; i++) good = good && idtab_remove(&t, id_of(i)) == &values[i];
  ok(good && t.len == 0 && t.pages.len == 0, "a page goes with its last value");
  idtab_finish(&t);
  ok(!idtab_put(&t, 9, values) && idtab_get(&t, 9) == values, "a finished table can be used again");
  idtab_finish(&t);
  return tap_end();
}
