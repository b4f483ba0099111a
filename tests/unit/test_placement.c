/* Which isolate a new process goes into. */
#include "vm/process/placement.h"

#include "still_vm.h"
#include "tap.h"

#include <stdlib.h>

static struct still st;

static void begin(int schedulers) {
  still_init(&st, &(struct vm_config){.schedulers = schedulers});
}

static struct isolate *outside(void) {
  return placement_from_outside(st.vm->placement);
}

static void test_outside(void) {
  begin(1);
  struct isolate *first = outside();
  bool same = true;
  for (int i = 1; i < PLACEMENT_SMALL; i++) same = same && outside() == first;
  ok(same && atomic_load(&first->live) == PLACEMENT_SMALL,
     "with one scheduler processes from outside fill one isolate, and are counted");
  struct isolate *second = outside();
  ok(second != first && atomic_load(&second->open) && !atomic_load(&first->open),
     "then the next, and the full one is shut");
  atomic_store(&first->live, 0), atomic_store(&second->live, 0);
  still_finish(&st);
}

/* Processes from outside that compute must be able to use all cores, however many others wait. */
static void test_outside_spreads(void) {
  struct isolate *at[8];
  begin(2);
  for (int i = 0; i < 8; i++) at[i] = outside();
  bool apart = true, round = true;
  for (int i = 0; i < 4; i++) {
    for (int k = 0; k < i; k++) apart = apart && at[i] != at[k];
    round = round && atomic_load(&at[i]->live) == 2;
  }
  ok(apart && round, "with two, they are spread evenly over four isolates");
  for (int i = 0; i < 3; i++) atomic_store(&at[i]->runnable.load, 1);
  atomic_store(&at[3]->live, 50);
  ok(outside() == at[3], "one goes where nothing computes, although more live there");
  atomic_store(&at[3]->runnable.load, 2);
  atomic_store(&at[1]->live, 1);
  ok(outside() == at[1],
     "where something computes in each, it goes where the fewest do, and the fewest live");
  for (int i = 0; i < 4; i++) atomic_store(&at[i]->live, 0);
  still_finish(&st);
}

static void test_home(void) {
  begin(2);
  struct process *p = still_spawn(&st, "receive()");
  ok(placement_is_home(p), "the first child stays in its parent's isolate");
  p->spawned = true;
  ok(!placement_is_home(p), "the next of a parent that has not waited since does not");
  p->spawned = false;
  atomic_store(&p->isolate->live, PLACEMENT_SMALL);
  ok(!placement_is_home(p), "nor does any in an isolate with many");
  atomic_store(&p->isolate->live, 1);
  p->isolate->preempted.first = p;
  ok(!placement_is_home(p), "nor beside a process that computes");
  p->isolate->preempted.first = NULL;
  still_finish(&st);
  begin(1);
  p = still_spawn(&st, "receive()");
  p->spawned = true;
  ok(placement_is_home(p), "with one scheduler there is nobody to share the work with");
  still_finish(&st);
}

/* Places the next n children of `from`, and counts them as spawn does. Returns how many isolates got one;
 * `used` has each of them once. */
static size_t place(struct process *from, int n, struct isolate *used[PLACEMENT_OPEN + 1]) {
  size_t len = 0;
  for (int i = 0; i < n; i++) {
    struct isolate *iso = placement_elsewhere(from);
    from->spawned = true;
    size_t at = 0;
    while (at < len && used[at] != iso) at++;
    if (at == len && len <= PLACEMENT_OPEN) used[len++] = iso;
    atomic_fetch_add(&iso->live, 1);
  }
  return len;
}

static void test_elsewhere(void) {
  struct isolate *used[PLACEMENT_OPEN + 1];
  begin(2);
  struct process *from = still_spawn(&st, "receive()");
  size_t n = place(from, 4, used);
  ok(n == 4 && atomic_load(&used[0]->live) == 1 && atomic_load(&used[3]->live) == 1,
     "a few children get an isolate each, two for each scheduler");
  for (int i = 0; i < 4; i++)
    ok(used[i] != from->isolate && atomic_load(&used[i]->open), "isolate %d is open, and another", i);
  n = place(from, 4 * (PLACEMENT_FEW - 1), used);
  ok(n == 4 && atomic_load(&used[0]->live) == PLACEMENT_FEW && atomic_load(&used[3]->live) == PLACEMENT_FEW,
     "the next go round, until each isolate has a few");
  n = place(from, PLACEMENT_CHUNK, used);
  ok(n == 1 && atomic_load(&used[0]->live) == PLACEMENT_FEW + PLACEMENT_CHUNK,
     "many go by the chunk into one");
  struct isolate *before = used[0];
  n = place(from, PLACEMENT_CHUNK, used);
  ok(n == 1 && used[0] != before, "and the next chunk into the next");
  struct isolate *full = used[0];
  atomic_store(&full->live, PLACEMENT_MAX);
  place(from, 3 * PLACEMENT_CHUNK, used);
  n = place(from, 1, used);
  ok(n == 1 && used[0] != full && atomic_load(&used[0]->live) == 1 && !atomic_load(&full->open),
     "a full one is shut, and another takes its place");
  still_finish(&st);
}

/* The next chunk is due in an isolate in which processes compute. */
static void test_elsewhere_is_busy(void) {
  struct isolate *used[PLACEMENT_OPEN + 1];
  begin(2);
  struct process *from = still_spawn(&st, "receive()");
  place(from, 4 * PLACEMENT_FEW, used);
  for (int i = 0; i < 3; i++) atomic_store(&used[i]->runnable.load, 1);
  struct isolate *free = used[3];
  size_t n = place(from, PLACEMENT_CHUNK, used);
  ok(n == 1 && used[0] == free, "a chunk does not go where processes compute, but where none does");
  still_finish(&st);
}

static void test_many_schedulers(void) {
  struct isolate *used[PLACEMENT_OPEN + 1];
  begin(64);
  struct process *from = still_spawn(&st, "receive()");
  ok(place(from, PLACEMENT_OPEN * PLACEMENT_FEW, used) == PLACEMENT_OPEN,
     "one scheduler spreads over a bounded number");
  still_finish(&st);
}

static void count(struct isolate *iso, void *data) {
  (void)iso;
  ++*(size_t *)data;
}

static size_t isolates(void) {
  size_t n = 0;
  placement_each(st.vm->placement, count, &n);
  return n;
}

static void desert(struct isolate *iso, void *data) {
  (void)data;
  atomic_store(&iso->live, 0);
}

/* Processes that wait must not keep a few children on one core. */
static void test_few_among_many(void) {
  struct isolate *used[PLACEMENT_OPEN + 1];
  begin(2);
  struct process *from = still_spawn(&st, "receive()");
  place(from, 4, used);
  for (int i = 0; i < 4; i++) atomic_store(&used[i]->live, 100);
  from->spawned = false;
  ok(place(from, 4, used) == 4, "a few children get an isolate each, also where many wait in each of them");
  still_finish(&st);
}

/* Makes a shut isolate with one process, beside an open one. */
static struct isolate *make_sparse(struct isolate **second) {
  struct isolate *first = still_spawn(&st, "receive()")->isolate;
  atomic_store(&first->live, PLACEMENT_SMALL);
  *second = outside();
  atomic_store(&first->live, 1);
  still_run(&st);
  return first;
}

static void test_sparse(void) {
  struct isolate *second;
  begin(1);
  struct isolate *first = make_sparse(&second);
  ok(first->L && !atomic_load(&first->open) && atomic_load(&first->offered),
     "a shut isolate of which one process is left is offered for newcomers");
  atomic_store(&first->runnable.load, 1);
  atomic_store(&second->live, PLACEMENT_SMALL);
  struct isolate *third = outside();
  ok(third != first && third != second, "not while a process computes there");
  atomic_store(&first->runnable.load, 0);
  atomic_store(&third->live, PLACEMENT_SMALL);
  ok(outside() == first && atomic_load(&first->open) && !atomic_load(&first->offered) &&
         atomic_load(&first->live) == 2 && isolates() == 3,
     "else they go there, before a new one is opened");
  atomic_store(&first->live, PLACEMENT_SMALL);
  struct isolate *fourth = outside();
  ok(fourth != first && !atomic_load(&first->open) && isolates() == 4, "until it is full again");
  atomic_store(&first->live, PLACEMENT_SPARSE + 1);
  still_run(&st);
  ok(!atomic_load(&first->offered), "with many processes it is not offered");
  atomic_store(&first->live, 1);
  atomic_store(&second->live, 0), atomic_store(&third->live, 0), atomic_store(&fourth->live, 0);
  still_finish(&st);
}

/* A shut isolate closes when its last process ends, and is then used again. */
static void test_spare(void) {
  begin(1);
  struct process *p = still_spawn(&st, "receive()");
  struct isolate *first = p->isolate;
  atomic_store(&first->live, PLACEMENT_SMALL);
  struct isolate *second = outside();
  atomic_store(&first->live, 1);
  still_run(&st);
  ok(first->L && isolates() == 2, "a shut isolate stays for those who live in it");
  vm_signal(st.vm, SIGNAL_MESSAGE, p->pid, NPID_NONE, NPID_NONE, NULL);
  still_run(&st);
  ok(!first->L, "and closes with the last");
  atomic_store(&second->live, PLACEMENT_SMALL);
  ok(outside() == first && atomic_load(&first->open) && isolates() == 2,
     "then it serves again, instead of a new one");
  atomic_store(&first->live, PLACEMENT_SMALL);
  ok(outside() != first && isolates() == 3, "and only once");
  placement_each(st.vm->placement, desert, NULL);
  still_finish(&st);
}

int main(void) {
  test_outside();
  test_outside_spreads();
  test_home();
  test_elsewhere();
  test_elsewhere_is_busy();
  test_few_among_many();
  test_many_schedulers();
  test_sparse();
  test_spare();
  placement_free(NULL);
  return tap_end();
}
