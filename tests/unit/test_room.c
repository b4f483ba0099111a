/* Flow control within a node: which receivers can lack room, who waits for room, and that no wake-up is
 * missed: a waiter either finds room or gets the signal ROOM. */
#include "vm/sched/room.h"
#include "vm/sched/waits.h"

#include "still_vm.h"
#include "tap.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { BOUND = 1 << 20 }; /* bytes of a mailbox; a quarter of it is the bound of an inbox */

static struct still st;

static bool told(npid from) {
  struct signal *s = still_take(&st, SIGNAL_ROOM);
  bool good = s && s->from == from && s->to == st.tester;
  signal_free(s);
  return good;
}

/* --- waits by themselves --- */

/* Ends a wait that tells nobody. */
static void leave(struct waits *w, struct room_wait *wait) {
  if (waits_leave(w, wait)) abort();
}

/* Counts and frees the signals: each is to be that of the wait after the last one. */
static int count_told(struct signal *s, uint64_t *next) {
  int n = 0;
  for (struct signal *after; s; s = after, n++) {
    after = s->next;
    if (npid_number(s->to) != (*next)++) abort();
    signal_free(s);
  }
  return n;
}

/* However many wait, few are told at once; each of these tells few others, until all are told, in their
 * order. */
static void test_many(void) {
  enum { MANY = 100000 };
  static struct room_wait *wait[MANY];
  struct waits w;
  waits_init(&w);
  npid key = npid_make(0, 5);
  uint64_t next = 0;
  int most = 0, told, left = 0;
  for (uint64_t i = 0; i < MANY; i++) wait[i] = waits_enter(&w, key, key, npid_make(0, i));
  told = count_told(waits_end(&w, key), &next);
  ok(told == WAITS_AT_ONCE, "of %d that wait, %d are told", MANY, told);
  for (; left < told; left++) {
    int more = count_told(waits_leave(&w, wait[left]), &next);
    told += more;
    if (more > most) most = more;
  }
  ok(told == MANY && most == WAITS_EACH, "each tells %d others, until %d are told", most, told);
  ok(!atomic_load(&w.count) && !w.by_key.len, "then nobody waits");
  waits_finish(&w);
}

/* Those who leave before they are told, and those who come meanwhile. */
static void test_many_leave(void) {
  enum { MANY = 1000 };
  struct room_wait *wait[MANY];
  struct waits w;
  waits_init(&w);
  npid key = npid_make(0, 5);
  for (uint64_t i = 0; i < MANY; i++) wait[i] = waits_enter(&w, key, key, npid_make(0, i));
  uint64_t next = 0;
  int told = count_told(waits_end(&w, key), &next);
  for (int i = MANY - 1; i >= MANY / 2; i--) leave(&w, wait[i]);
  struct room_wait *late = waits_enter(&w, key, key, npid_make(0, MANY));
  for (int left = 0; left < told; left++) told += count_told(waits_leave(&w, wait[left]), &next);
  ok(told == MANY / 2, "those who leave are not told: %d", told);
  ok(atomic_load(&w.count) == 1 && w.by_key.len == 1, "one who comes later waits");
  leave(&w, late);
  ok(!atomic_load(&w.count) && !w.by_key.len, "until it leaves");
  waits_finish(&w);
}

static void test_waits(void) {
  struct waits w;
  waits_init(&w);
  npid key = npid_make(0, 5);
  struct room_wait *a = waits_enter(&w, key, key, npid_make(0, 11));
  struct room_wait *b = waits_enter(&w, key, key, npid_make(0, 12));
  struct room_wait *c = waits_enter(&w, key, key, npid_make(0, 13));
  struct room_wait *other = waits_enter(&w, npid_make(0, 6), npid_make(0, 6), npid_make(0, 14));
  leave(&w, b);
  struct signal *s = waits_end(&w, key);
  ok(s && s->to == npid_make(0, 11) && s->from == key && s->next && s->next->to == npid_make(0, 13) &&
         !s->next->next,
     "all who wait for a key are told, oldest first, but for one that left");
  ok(!waits_end(&w, key), "each of them once");
  ok(atomic_load(&w.count) == 1, "one that waits for another key still does");
  signal_free(s->next), signal_free(s);
  leave(&w, a), leave(&w, c), leave(&w, other), leave(&w, NULL);
  ok(atomic_load(&w.count) == 0 && w.by_key.len == 0, "nothing is left once all have left");
  waits_finish(&w);
}

/* Leaving from each place of the list keeps the others in it. */
static void test_leaving(void) {
  struct waits w;
  waits_init(&w);
  bool good = true;
  npid key = npid_make(0, 5);
  for (int gone = 0; gone < 3; gone++) {
    struct room_wait *wait[3];
    for (int i = 0; i < 3; i++) wait[i] = waits_enter(&w, key, key, npid_make(0, 10 + (uint64_t)i));
    leave(&w, wait[gone]);
    struct signal *s = waits_end(&w, key);
    for (int i = 0; i < 3; i++) {
      if (i == gone) continue;
      struct signal *next = s ? s->next : NULL;
      good = good && s && s->to == npid_make(0, 10 + (uint64_t)i);
      signal_free(s);
      s = next;
      leave(&w, wait[i]);
    }
    good = good && !s;
  }
  ok(good && atomic_load(&w.count) == 0, "the first, the middle and the last wait may leave");
  waits_finish(&w);
}

static void test_held(void) {
  struct waits w;
  npid out[8];
  waits_init(&w);
  for (uint64_t i = 1; i <= 5; i++) waits_hold(&w, npid_make(2, i), true, 1);
  waits_hold(&w, npid_make(2, 5), true, 1);
  waits_hold(&w, npid_make(3, 1), true, 1);
  ok(waits_held(&w, npid_make(2, 1)) && !waits_held(&w, npid_make(2, 6)), "what was reported full is held");
  ok(waits_held_of(&w, 2, 1, out, 8) == 5 && waits_held_of(&w, 2, 1, out, 3) == 3,
     "up to max of one node's are listed");
  for (uint64_t i = 1; i <= 5; i++) waits_hold(&w, npid_make(2, i), false, 1);
  waits_hold(&w, npid_make(2, 1), false, 1);
  waits_hold(&w, npid_make(2, 1), true, 2);
  ok(waits_held_of(&w, 2, 1, out, 8) == 0 && waits_held_of(&w, 2, 2, out, 8) == 1,
     "those of a later connection are told apart");
  waits_hold(&w, npid_make(2, 1), false, 2);
  ok(waits_held_of(&w, 2, 1, out, 8) == 0 && waits_held(&w, npid_make(3, 1)),
     "until it is not full any more");
  waits_hold(&w, npid_make(3, 1), false, 1);
  ok(atomic_load(&w.held_count) == 0, "and then no look takes the lock");
  waits_finish(&w);
}

/* --- the four things that can lack room --- */

static void test_mailbox(void) {
  npid pid = still_spawn(&st, "receive()")->pid;
  struct room_wait *w;
  ok(vm_lack(st.vm, pid) == NPID_NONE && vm_await_room(st.vm, pid, st.tester, &w) == 0 && !w,
     "a process with room is not waited for");
  vm_set_full(st.vm, pid, true);
  ok(vm_lack(st.vm, pid) == pid && vm_await_room(st.vm, pid, st.tester, &w) == ERR_BUSY && w,
     "a full one is waited for");
  ok(!still_take(&st, SIGNAL_ROOM), "nobody is told as long as it is full");
  vm_set_full(st.vm, pid, false);
  ok(told(pid) && !still_take(&st, SIGNAL_ROOM), "as it has room the waiter is told, once");
  vm_leave_room(st.vm, &w);
  ok(!w && atomic_load(&st.vm->waits.count) == 0, "and leaves");
  vm_set_full(st.vm, pid, true);
  if (vm_await_room(st.vm, pid, st.tester, &w) != ERR_BUSY) abort();
  vm_leave_room(st.vm, &w);
  vm_set_full(st.vm, pid, false);
  ok(!still_take(&st, SIGNAL_ROOM), "one that has left before is not told");
  vm_set_full(st.vm, pid, true);
  if (vm_await_room(st.vm, pid, st.tester, &w) != ERR_BUSY) abort();
  vm_signal(st.vm, SIGNAL_EXIT, pid, NPID_NONE, NPID_NONE, term_build("s", "kill"));
  still_run(&st);
  ok(vm_lack(st.vm, pid) == NPID_NONE, "a process that has ended lacks nothing");
  vm_leave_room(st.vm, &w);
}

static void fill(npid to, int64_t bytes) {
  char *pad = calloc(1, (size_t)bytes + 1);
  memset(pad, 'x', (size_t)bytes);
  vm_signal(st.vm, SIGNAL_MESSAGE, to, NPID_NONE, NPID_NONE, term_build("s", pad));
  free(pad);
}

static void test_inboxes(void) {
  struct room_wait *w;
  still_clear(&st);
  fill(npid_make(st.far, 4), BOUND / 4);
  npid key = waits_key_of_inbox(&st.vm->host.inbox);
  ok(npid_is_ref(key) && vm_lack(st.vm, npid_make(st.far, 9)) == key && vm_lack(st.vm, NPID_KERNEL) == key &&
         vm_lack(st.vm, st.tester) == key,
     "while the host's inbox is full its processes, the kernel and other nodes lack room");
  struct process *p = still_spawn(&st, "receive() receive()");
  fill(npid_make(st.far, 4), BOUND / 4);
  ok(vm_lack(st.vm, p->pid) == NPID_NONE, "a green thread does not");
  ok(vm_await_room(st.vm, NPID_KERNEL, p->pid, &w) == ERR_BUSY, "it may wait for the host");
  still_clear(&st); /* empties the inbox */
  ok(p->isolate->runnable.inbox.head && atomic_load(&p->isolate->runnable.inbox.head)->kind == SIGNAL_ROOM,
     "and is told as the host takes its inbox");
  vm_leave_room(st.vm, &w);
  still_run(&st);
  fill(p->pid, BOUND / 4);
  key = waits_key_of_inbox(&p->isolate->runnable.inbox);
  ok(vm_lack(st.vm, p->pid) == key && vm_await_room(st.vm, p->pid, st.tester, &w) == ERR_BUSY,
     "an isolate's full inbox is waited for");
  still_run(&st);
  ok(told(p->pid), "and the waiter is told as the isolate takes it");
  vm_leave_room(st.vm, &w);
  ok(vm_lack(st.vm, vm_ref(st.vm)) == NPID_NONE, "a reference lacks nothing");
}

/* With the bound of mailboxes that a node has. */
static void test_to_nodes(void) {
  size_t *bound = &st.vm->config.mailbox_bytes;
  struct process *p = still_spawn(&st, "receive()");
  still_clear(&st);
  *bound = (size_t)1 << 30;
  fill(npid_make(st.far, 4), ROOM_NODES_BYTES / 2);
  ok(vm_lack(st.vm, npid_make(st.far, 9)) == NPID_NONE,
     "the host's inbox takes some messages to other nodes");
  fill(npid_make(st.far, 4), ROOM_NODES_BYTES / 2);
  ok(vm_lack(st.vm, npid_make(st.far, 9)) == waits_key_of_inbox(&st.vm->host.inbox),
     "and lacks room for more of them beyond ROOM_NODES_BYTES");
  fill(p->pid, ROOM_NODES_BYTES);
  ok(vm_lack(st.vm, p->pid) == NPID_NONE && vm_lack(st.vm, st.tester) == NPID_NONE,
     "processes of this node, the host's too, may still be sent to");
  still_clear(&st);
  still_run(&st);
  *bound = BOUND;
}

static void test_nodes(void) {
  struct room_wait *w, *v;
  npid pid = npid_make(st.far, 9);
  still_clear(&st);
  vm_set_busy(st.vm, st.far, true);
  ok(vm_lack(st.vm, pid) == npid_kernel_of(pid) && vm_await_room(st.vm, pid, st.tester, &w) == ERR_BUSY,
     "a busy connection is waited for");
  vm_set_busy(st.vm, st.far, false);
  ok(told(pid), "until it has drained: the signal comes from the process that was to get the message");
  vm_leave_room(st.vm, &w);
  vm_hold(st.vm, pid, true);
  ok(vm_lack(st.vm, pid) == pid && vm_lack(st.vm, npid_make(st.far, 10)) == NPID_NONE &&
         vm_await_room(st.vm, pid, st.tester, &w) == ERR_BUSY,
     "of a node's processes the one that it reported full is waited for");
  vm_hold(st.vm, pid, false);
  ok(told(pid) && vm_lack(st.vm, pid) == NPID_NONE, "until it is reported to have room");
  vm_leave_room(st.vm, &w);
  for (uint64_t i = 0; i < 600; i++) vm_hold(st.vm, npid_make(st.far, 9 + i), true);
  if (vm_await_room(st.vm, pid, st.tester, &w) != ERR_BUSY) abort();
  if (vm_await_room(st.vm, npid_make(st.far, 608), st.tester, &v) != ERR_BUSY) abort();
  while (vm_unhold_node(st.vm, st.far, nodetab_epoch(st.nodes, st.far))) continue;
  ok(atomic_load(&st.vm->waits.held_count) == 0, "all that a node has reported is forgotten, however much");
  struct signal *a = still_take(&st, SIGNAL_ROOM), *b = still_take(&st, SIGNAL_ROOM);
  ok(a && b && !still_take(&st, SIGNAL_ROOM), "and who waited for it is told");
  signal_free(a), signal_free(b);
  vm_leave_room(st.vm, &w), vm_leave_room(st.vm, &v);
}

/* --- a waiter enters as room is made --- */

struct entry {
  npid to;
  int code;
  struct room_wait *wait;
};

static void *enter(void *data) {
  struct entry *e = data;
  e->code = vm_await_room(st.vm, e->to, st.tester, &e->wait);
  return NULL;
}

/* Waits until a thread waits for the lock. That thread has then seen that there is no room, and has not yet
 * entered the list of waiters. */
static void await_contention(pthread_mutex_t *lock) {
  while (__atomic_load_n(&lock->__data.__lock, __ATOMIC_RELAXED) < 2) sched_yield();
}

/* The test makes room after the waiter has seen that there is none and before it has entered the list: the
 * maker of room sees no waiter. */
static void test_race(void) {
  pthread_t thread;
  struct entry e = {.to = st.tester, .code = -1};
  still_clear(&st);
  vm_set_full(st.vm, e.to, true);
  pthread_mutex_lock(&st.vm->waits.lock);
  if (pthread_create(&thread, NULL, enter, &e)) abort();
  await_contention(&st.vm->waits.lock);
  vm_set_full(st.vm, e.to, false);
  pthread_mutex_unlock(&st.vm->waits.lock);
  pthread_join(thread, NULL);
  ok(e.code == 0 && !e.wait && atomic_load(&st.vm->waits.count) == 0,
     "a waiter that enters as room is made looks again, and finds it");
}

enum { ROUNDS = 5000 };

static pthread_barrier_t begin, end;

static void *make_room(void *data) {
  for (int i = 0; i < ROUNDS; i++) {
    pthread_barrier_wait(&begin);
    vm_set_full(st.vm, *(npid *)data, false);
    pthread_barrier_wait(&end);
  }
  return NULL;
}

/* In every round one thread makes room while another enters the list of waiters: when both are done, a waiter
 * that has entered has got ROOM. */
static void test_rounds(void) {
  pthread_t thread;
  npid pid = st.tester;
  int missed = 0;
  still_clear(&st);
  pthread_barrier_init(&begin, NULL, 2), pthread_barrier_init(&end, NULL, 2);
  if (pthread_create(&thread, NULL, make_room, &pid)) abort();
  for (int i = 0; i < ROUNDS; i++) {
    struct room_wait *w;
    vm_set_full(st.vm, pid, true);
    pthread_barrier_wait(&begin);
    int code = vm_await_room(st.vm, pid, st.tester, &w);
    pthread_barrier_wait(&end);
    struct signal *s = still_take(&st, SIGNAL_ROOM);
    missed += code == ERR_BUSY && !s;
    signal_free(s);
    vm_leave_room(st.vm, &w);
  }
  pthread_join(thread, NULL);
  pthread_barrier_destroy(&begin), pthread_barrier_destroy(&end);
  ok(missed == 0, "in whatever order the two come, no waiter is left waiting");
}

int main(void) {
  test_waits();
  test_leaving();
  test_many();
  test_many_leave();
  test_held();
  still_init(&st, &(struct vm_config){.schedulers = 2, .mailbox_bytes = BOUND});
  test_mailbox();
  test_inboxes();
  test_to_nodes();
  test_nodes();
  test_race();
  test_rounds();
  still_finish(&st);
  return tap_end();
}
