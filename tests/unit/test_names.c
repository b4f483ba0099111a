#include "core/names.h"

#include "tap.h"

#include <pthread.h>
#include <stdlib.h>

enum { OF_ONE = 1024 };

struct tally {
  size_t count;
  uint64_t tokens;
};

static void on_each(void *data, const char *name, npid pid, uint64_t token) {
  struct tally *t = data;
  t->count += name[0] && pid != NPID_NONE;
  t->tokens += token;
}

static void test_register(struct names *n) {
  npid a = npid_make(0, 1), b = npid_make(0, 2), before = 0;
  uint64_t token = 0;
  ok(names_whereis(n, "x", &token) == NPID_NONE && token == 0, "nobody has it yet");
  ok(names_register(n, "x", a, 11) == 0 && names_whereis(n, "x", &token) == a && token == 11, "registered");
  ok(names_register(n, "x", b, 12) == ERR_NAME_TAKEN && names_register(n, "x", a, 12) == ERR_NAME_TAKEN,
     "taken");
  ok(names_replace(n, "x", b, 13, NULL, &before) == 0 && before == a && names_whereis(n, "x", &token) == b &&
         token == 13,
     "replaced");
  ok(names_drop(n, a) == 0 && names_count(n) == 1, "and it is no longer the first one's");
  ok(names_replace(n, "x", b, 14, NULL, &before) == 0 && before == b && names_whereis(n, "x", &token) == b &&
         token == 14,
     "replaced by itself: a new token");
  ok(!names_unregister(n, "x", 13) && names_whereis(n, "x", NULL) == b, "an old token takes nothing away");
  ok(names_unregister(n, "x", 14) && !names_unregister(n, "x", 0) && names_count(n) == 0,
     "unregistered once");
  ok(names_replace(n, "new", a, 1, NULL, &before) == 0 && before == NPID_NONE &&
         names_unregister(n, "new", 0),
     "replacing nobody registers");
}

static void test_of(struct names *n) {
  char out[8] = "as was";
  ok(!names_of(n, 7, out, sizeof out) && !strcmp(out, "as was"), "a pid without a name");
  bool given = !names_register(n, "one", 7, 0) && !names_register(n, "two", 7, 0);
  ok(given && names_of(n, 7, out, sizeof out) && !strcmp(out, "two"), "of several names the last is told");
  names_unregister(n, "two", 0);
  ok(names_of(n, 7, out, sizeof out) && !strcmp(out, "one"), "or what is left");
  ok(!names_of(n, 7, out, 3) && !strcmp(out, "one"), "a name that does not fit is not told");
  names_drop(n, 7);
  ok(!names_of(n, 7, out, sizeof out), "and nothing once they are gone");
}

static void test_bound(struct names *n) {
  npid a = npid_make(0, 1), b = npid_make(0, 2);
  int good = 0;
  char name[16], why[NAMES_REFUSAL_SIZE];
  for (int i = 0; i < OF_ONE; i++) {
    snprintf(name, sizeof name, "n%d", i);
    good += names_register(n, name, a, 0) == 0;
  }
  ok(good == OF_ONE && names_register(n, "more", a, 0) == ERR_BUSY, "a process has %d names at most", OF_ONE);
  ok(strstr(names_refusal(n, ERR_BUSY, why), "1024 names"), "which is told");
  ok(names_register(n, "more", b, 0) == 0, "another may have more");
  ok(names_unregister(n, "n7", 0) && names_register(n, "less", a, 0) == 0, "and it, too, once it has fewer");
  ok(names_drop(n, a) == OF_ONE && names_drop(n, b) == 1, "all of them go");
}

static void test_drop(struct names *n) {
  int bad = 0;
  char name[32];
  for (uint64_t i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "n%d", (int)i);
    bad += names_register(n, name, npid_make(i % 2 ? 5 : 0, i % 10), i) != 0;
  }
  struct tally seen = {0};
  names_each(n, on_each, &seen);
  ok(!bad && seen.count == 100 && seen.tokens == 4950, "each entry is met once");
  ok(names_drop(n, npid_make(0, 4)) == 10 && names_count(n) == 90 &&
         names_whereis(n, "n4", NULL) == NPID_NONE && names_whereis(n, "n2", NULL) == npid_make(0, 2),
     "a process's names go together, and no other's");
  ok(names_drop(n, npid_make(0, 4)) == 0, "only once");
  for (uint64_t i = 0; i < 20; i++) names_drop(n, npid_make(i % 2 ? 5 : 0, i / 2));
  ok(names_count(n) == 0, "the others stay until theirs do");
}

struct visit {
  struct names *names;
  char seen[4096];
};

static void on_visit(void *data, const char *name, npid pid, uint64_t token) {
  struct visit *v = data;
  (void)pid, (void)token;
  size_t n = strlen(v->seen);
  snprintf(v->seen + n, sizeof v->seen - n, "%s ", name);
}

static void test_walk(struct names *n) {
  struct names_walk w, other;
  struct visit v = {n, ""};
  npid a = npid_make(0, 71), b = npid_make(0, 72);
  names_walk_begin(n, &w);
  ok(!names_walk(n, &w, 10, on_visit, &v) && !*v.seen, "a walk of an empty table is over at once");
  names_walk_end(n, &w);
  const char *const all[] = {"a", "b", "c", "d", "e", "f", "g"};
  int bad = 0;
  for (size_t i = 0; i < 7; i++) bad += names_register(n, all[i], i == 3 || i == 4 ? b : a, i + 1) != 0;
  names_walk_begin(n, &w);
  names_walk_begin(n, &other);
  ok(!bad && names_walk(n, &w, 2, on_visit, &v), "a walk has more");
  is(v.seen, "a b ", "after as many as were wanted, the oldest first");
  names_unregister(n, "c", 0);
  names_unregister(n, "a", 0);
  if (names_replace(n, "f", b, 9, NULL, NULL) || names_register(n, "h", a, 9)) abort();
  ok(names_walk(n, &w, 1, on_visit, &v), "it goes on behind what was removed");
  names_drop(n, b);
  ok(!names_walk(n, &w, 9, on_visit, &v), "to the end");
  is(v.seen, "a b d g h ", "each once");
  *v.seen = 0;
  names_walk(n, &other, 9, on_visit, &v);
  is(v.seen, "b g h ", "another walk has its own place");
  names_walk_end(n, &w);
  names_walk_end(n, &other);
  names_drop(n, a);
}

/* Applies random steps to the table and to an array that models it; the chains of the table get all
 * lengths. */
static void test_against_model(struct names *n) {
  enum { KEYS = 60, PIDS = 8, STEPS = 50000 };
  npid model[KEYS];
  int wrong = 0;
  char name[16];
  srandom(5);
  for (int k = 0; k < KEYS; k++) model[k] = NPID_NONE;
  for (int i = 0; i < STEPS; i++) {
    int k = (int)(random() % KEYS);
    npid pid = npid_make((uint32_t)random() % 2, (uint64_t)random() % PIDS), before = NPID_NONE;
    snprintf(name, sizeof name, "k%d", k);
    switch (random() % 16) {
    case 0:
      names_drop(n, pid);
      for (int j = 0; j < KEYS; j++) model[j] = model[j] == pid ? NPID_NONE : model[j];
      break;
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
      wrong += names_unregister(n, name, 0) != (model[k] != NPID_NONE);
      model[k] = NPID_NONE;
      break;
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
      wrong += names_replace(n, name, pid, 0, NULL, &before) != 0 || before != model[k];
      model[k] = pid;
      break;
    default:
      wrong += names_register(n, name, pid, 0) != (model[k] == NPID_NONE ? 0 : ERR_NAME_TAKEN);
      if (model[k] == NPID_NONE) model[k] = pid;
    }
    wrong += names_whereis(n, name, NULL) != model[k];
  }
  size_t live = 0, left = names_count(n);
  for (int k = 0; k < KEYS; k++) live += model[k] != NPID_NONE;
  ok(!wrong && live == left, "%d random steps agree with an array", STEPS);
  size_t dropped = 0;
  for (uint64_t p = 0; p < PIDS; p++)
    dropped += names_drop(n, npid_make(0, p)) + names_drop(n, npid_make(1, p));
  ok(dropped == live && !names_count(n), "every chain is whole");
}

enum { THREADS = 3, ROUNDS = 5000 };

struct worker {
  struct names *names;
  npid pid;
  int wrong;
};

static void *work(void *data) {
  struct worker *w = data;
  char own[32];
  snprintf(own, sizeof own, "own-%d", (int)npid_number(w->pid));
  for (uint64_t i = 1; i <= ROUNDS; i++) {
    w->wrong += names_register(w->names, own, w->pid, i) != 0;
    w->wrong += names_register(w->names, "shared", w->pid, i) == ERR_NOMEM;
    names_whereis(w->names, "shared", NULL);
    w->wrong += names_whereis(w->names, own, NULL) != w->pid;
    w->wrong += names_drop(w->names, w->pid) < 1;
  }
  return NULL;
}

static void test_threads(struct names *n) {
  pthread_t threads[THREADS];
  struct worker workers[THREADS];
  int wrong = 0;
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (struct worker){n, npid_make(0, (uint64_t)i + 1), 0};
    wrong += pthread_create(&threads[i], NULL, work, &workers[i]) != 0;
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL), wrong += workers[i].wrong;
  ok(!wrong && names_count(n) == 0, "%d threads register, look up and drop", THREADS);
}

int main(void) {
  struct names *n = names_new();
  test_register(n);
  test_of(n);
  test_bound(n);
  test_drop(n);
  test_walk(n);
  test_against_model(n);
  test_threads(n);
  bool left = names_register(n, "left", 1, 1) == 0;
  ok(left, "freed with an entry in it");
  names_free(n);
  names_free(NULL);
  return tap_end();
}
