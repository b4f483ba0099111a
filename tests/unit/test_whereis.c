/* The cache of names of an isolate agrees with the table, even while another thread changes the table. */
#include "vm/sched/whereis.h"

#include "tap.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

static npid at(struct whereis *known, struct names *n, const char *name) {
  return whereis_pid(known, n, name, strlen(name));
}

static void test_table(void) {
  static struct whereis known;
  struct names *a = names_new(), *b = names_new();
  char name[WHEREIS_NAME + 8] = "one";
  ok(at(&known, a, name) == NPID_NONE, "a name that nobody has is nobody's");
  if (names_register(a, "one", 7, 0)) abort();
  ok(at(&known, a, name) == 7, "a registration ends the memory of that");
  ok(at(&known, a, name) == 7 && at(&known, b, name) == NPID_NONE, "of two tables each has its own answers");
  if (names_register(a, "two", 8, 0)) abort();
  memcpy(name, "two", 3);
  ok(at(&known, a, name) == 8, "another name at the same address is another name");
  ok(whereis_pid(&known, a, "two\0x", 5) == NPID_NONE, "a name with a zero byte is nobody's");
  names_unregister(a, "two", 0);
  ok(at(&known, a, name) == NPID_NONE, "a name that was given up is nobody's");
  memset(name, 'x', sizeof name - 1);
  for (size_t n = WHEREIS_NAME - 1; n <= WHEREIS_NAME + 1; n++) {
    name[n] = '\0';
    if (names_register(a, name, 100 + n, 0)) abort();
    ok(at(&known, a, name) == 100 + n && at(&known, a, name) == 100 + n, "a name of %zu bytes is found", n);
    name[n] = 'x';
  }
  names_free(a), names_free(b);
}

enum { CHANGES = 4000 };

struct race {
  struct names *names;
  _Atomic npid done; /* the pid of the last registration that has returned */
  atomic_uint looks;
};

/* Makes changes in pairs: the first makes the reader look up the table, and the second comes at a different
 * moment of that look-up in each pair. Then waits until the reader has looked again. */
static void *change(void *data) {
  struct race *r = data;
  for (npid i = 1; i <= CHANGES; i++) {
    if (names_replace(r->names, "name", i, 0, NULL, NULL)) abort();
    atomic_store(&r->done, i);
    if (i % 2) {
      for (volatile unsigned spin = i / 2 % 400; spin > 0; spin--) continue;
      continue;
    }
    unsigned looks = atomic_load(&r->looks);
    while (i < CHANGES && atomic_load(&r->looks) - looks < 3) sched_yield();
  }
  return NULL;
}

/* The pids grow, so an outdated answer is a smaller pid. */
static void test_race(void) {
  static struct whereis known;
  static const char name[] = "name";
  struct race r = {.names = names_new()};
  pthread_t thread;
  npid last = 0;
  int stale = 0;
  if (names_register(r.names, "name", 0, 0) || pthread_create(&thread, NULL, change, &r)) abort();
  for (npid done = 0; done < CHANGES; atomic_fetch_add(&r.looks, 1)) {
    done = atomic_load(&r.done);
    npid pid = at(&known, r.names, name);
    stale += pid < done || pid < last;
    last = pid < done ? done : pid;
  }
  pthread_join(thread, NULL);
  ok(stale == 0, "a look-up that begins after a registration has returned finds it");
  names_free(r.names);
}

int main(void) {
  test_table();
  test_race();
  return tap_end();
}
