#include "base/map.h"

#include "tap.h"

#include <stdlib.h>
#include <string.h>

enum { KEYS = 512, MANY_KEYS = 50000, STEPS = 200000 };

static char marks[KEYS + 1];

/* After random puts and removals, the map holds what an array holds after the same steps. */
static void test_against_model(bool names) {
  struct map m = MAP_INIT;
  void *model[KEYS] = {0};
  size_t live = 0;
  int wrong = 0;
  srandom(7);
  for (int i = 0; i < STEPS; i++) {
    unsigned k = (unsigned)random() % KEYS;
    char name[32];
    snprintf(name, sizeof name, "name-of-process-%u", k);
    void *value = &marks[random() % KEYS];
    if (random() % 2) {
      live += !model[k];
      model[k] = value;
      wrong += (names ? map_put(&m, name, value) : map_put_id(&m, k, value)) != 0;
    } else {
      live -= model[k] != NULL;
      wrong += (names ? map_remove(&m, name) : map_remove_id(&m, k)) != model[k];
      model[k] = NULL;
    }
    unsigned look = (unsigned)random() % KEYS;
    snprintf(name, sizeof name, "name-of-process-%u", look);
    wrong += (names ? map_get(&m, name) : map_get_id(&m, look)) != model[look];
    wrong += m.len != live;
  }
  ok(wrong == 0, "%d random steps with %s keys agree with an array", STEPS, names ? "string" : "integer");
  ok(m.len * 4 <= m.cap * 3, "at most three quarters full");
  map_finish(&m);
}

static void test_walk(void) {
  struct map m = MAP_INIT;
  size_t at = 0, seen = 0;
  int bad = 0;
  uint64_t id, sum = 0;
  void *value;
  ok(!map_next(&m, &at, NULL, NULL, &value), "an empty map has no entries to visit");
  for (uint64_t i = 0; i < 100; i++) bad += map_put_id(&m, i << 44, &marks[i]) != 0;
  for (at = 0; map_next(&m, &at, NULL, &id, &value); seen++)
    sum += id >> 44, bad += value != &marks[id >> 44];
  ok(seen == 100 && sum == 4950 && !bad, "map_next visits each key once, with its value");
  map_finish(&m);
}

static void test_keys(void) {
  struct map m = MAP_INIT;
  char name[] = "two";
  int bad = map_put(&m, name, &marks[1]) + map_put(&m, "", &marks[2]) + map_put_id(&m, 0, &marks[3]);
  name[0] = 'x';
  ok(!bad && map_get(&m, "two") == &marks[1] && !map_get(&m, name), "the map has its own copy of a key");
  ok(map_get(&m, "") == &marks[2] && map_get_id(&m, 0) == &marks[3],
     "the empty string and 0 are two different keys");
  bad = map_put(&m, "two", &marks[4]);
  ok(!bad && m.len == 3 && map_get(&m, "two") == &marks[4], "a second put replaces the value");
  map_finish(&m);
}

/* A map that was large gives its memory back, and does not rehash again and again at one length. */
static void test_shrinks(void) {
  struct map m = MAP_INIT;
  enum { MANY = 100000, ROUNDS = 1000 };
  int bad = 0;
  size_t changes = 0, cap;
  for (uint64_t i = 0; i < MANY; i++) bad += map_put_id(&m, i, &marks[i % KEYS]) != 0;
  for (uint64_t i = 0; i < MANY - 10; i++) bad += map_remove_id(&m, i) != &marks[i % KEYS];
  for (uint64_t i = MANY - 10; i < MANY; i++) bad += map_get_id(&m, i) != &marks[i % KEYS];
  ok(!bad && m.len == 10, "%d entries come and go, and ten stay", MANY);
  ok(m.cap <= 128, "the table of slots has become small again (%zu slots)", m.cap);
  for (uint64_t i = 0; i < 600; i++) bad += map_put_id(&m, i, &marks[0]) != 0;
  cap = m.cap;
  for (uint64_t i = 0; m.cap == cap; i++)
    bad += !map_remove_id(&m, i); /* to the length at which it shrinks */
  cap = m.cap;
  for (uint64_t i = 0; i < ROUNDS; i++) {
    bad += map_put_id(&m, MANY + i, &marks[0]) != 0 || !map_remove_id(&m, MANY + i);
    changes += m.cap != cap, cap = m.cap;
  }
  ok(!bad && changes == 0, "entries that come and go at that length cause no rehash");
  map_finish(&m);
}

/* A walk visits each entry of the model once. */
static int walk_differs(const struct map *m, void *const *model) {
  static bool seen[MANY_KEYS];
  memset(seen, 0, sizeof seen);
  size_t at = 0, count = 0;
  const char *name;
  uint64_t id;
  void *value;
  int wrong = 0;
  for (; map_next(m, &at, &name, &id, &value); count++) {
    uint64_t k = name ? strtoull(name, NULL, 10) : id;
    wrong += seen[k] || model[k] != value;
    seen[k] = true;
  }
  return wrong + (count != m->len);
}

/* A map with so many entries that it is rehashed in steps: it grows, shrinks, and grows again in the middle
 * of a rehash, and agrees with an array at each step. */
static void test_steps(bool names) {
  static void *model[MANY_KEYS];
  struct map m = MAP_INIT;
  size_t live = 0, stepwise = 0;
  int wrong = 0;
  memset(model, 0, sizeof model);
  srandom(11);
  for (int phase = 0; phase < 6; phase++)
    for (int i = 0; i < 2 * MANY_KEYS; i++) {
      unsigned k = (unsigned)random() % MANY_KEYS, look = (unsigned)random() % MANY_KEYS;
      bool puts = random() % 8 ? phase % 2 == 0 : phase % 2 == 1;
      char name[32];
      snprintf(name, sizeof name, "%u", k);
      void *value = puts ? &marks[random() % KEYS] : NULL;
      live += (puts && !model[k]) - (size_t)(!puts && model[k]);
      if (puts)
        wrong += (names ? map_put(&m, name, value) : map_put_id(&m, k, value)) != 0;
      else
        wrong += (names ? map_remove(&m, name) : map_remove_id(&m, k)) != model[k];
      model[k] = value;
      snprintf(name, sizeof name, "%u", look);
      wrong += (names ? map_get(&m, name) : map_get_id(&m, look)) != model[look];
      wrong += m.len != live;
      if (m.rest && stepwise++ % 500 == 0) wrong += walk_differs(&m, model);
    }
  ok(wrong == 0, "while a large map with %s keys is rehashed, it agrees with an array",
     names ? "string" : "integer");
  ok(stepwise > 1000, "which takes many steps (%zu)", stepwise);
  wrong = walk_differs(&m, model);
  for (unsigned k = 0; k < MANY_KEYS; k++) {
    char name[32];
    snprintf(name, sizeof name, "%u", k);
    wrong += (names ? map_remove(&m, name) : map_remove_id(&m, k)) != model[k];
  }
  ok(wrong == 0 && m.len == 0, "all entries can be removed");
  map_finish(&m);
}

/* map_finish frees the keys of both tables. */
static void test_finish(void) {
  struct map m = MAP_INIT;
  int bad = 0, i = 0;
  for (; !m.rest; i++) {
    char name[32];
    snprintf(name, sizeof name, "%d", i);
    bad += map_put(&m, name, &marks[0]) != 0;
  }
  ok(!bad && map_get(&m, "0") && m.len == (size_t)i, "a map of %d entries is rehashed in steps", i);
  map_finish(&m);
  ok(!map_get(&m, "0") && !m.rest, "and can be freed meanwhile");
}

int main(void) {
  test_against_model(true);
  test_against_model(false);
  test_walk();
  test_keys();
  test_shrinks();
  test_steps(true);
  test_steps(false);
  test_finish();
  return tap_end();
}
