/* Orders for a new process: their contents, and that each is answered exactly once, even when the process is
 * killed or refused. */
#include "vm/process/spawn.h"
#include "vm/process/ties.h"

#include "still_vm.h"
#include "tap.h"

#include <stdlib.h>

static struct still st;

/* An order from a green thread that asks for a link and a monitor, of a module that does not exist. */
static struct term *order(npid leader, bool link, npid ref) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_pid(&w, leader), term_put_int(&w, spawn_flags(link, PRIORITY_NORMAL));
  term_put_pid(&w, ref);
  term_put_nil(&w);
  term_put_text(&w, "no.module"), term_put_text(&w, "function");
  term_set_count(&w, term_open(&w, TERM_LIST), 0);
  struct term *t = term_from_writer(&w, 7);
  term_writer_finish(&w);
  return t;
}

static void put_pair(struct term_writer *w, npid a, npid b) {
  size_t at = term_open(w, TERM_LIST);
  term_put_pid(w, a), term_put_pid(w, b);
  term_set_count(w, at, 2);
}

static struct term *host_order(npid link, npid watcher, npid ref) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "spawn");
  size_t at = term_open(&w, TERM_MAP);
  term_put_text(&w, "lua"), term_put_text(&w, "receive()");
  term_put_text(&w, "link"), term_put_pid(&w, link);
  term_put_text(&w, "monitor"), put_pair(&w, watcher, ref);
  term_set_count(&w, at, 3);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}

static void test_read(void) {
  npid ref = vm_ref(st.vm), far = npid_make(st.far, 9);
  struct signal *s =
      signal_new(SIGNAL_SPAWN, npid_make(0, 50), npid_make(0, 40), NPID_NONE, order(st.tester, true, ref));
  struct spawn_order o = spawn_read_order(&st.vm->config, s);
  ok(!o.host && o.leader == st.tester && o.link == s->from && o.watcher == s->from && o.ref == ref,
     "a green thread's order links and monitors its sender");
  signal_free(s);
  s = signal_new(SIGNAL_SPAWN, npid_make(0, 50), npid_make(0, 40), NPID_NONE,
                 order(st.tester, false, NPID_NONE));
  o = spawn_read_order(&st.vm->config, s);
  ok(o.link == NPID_NONE && o.watcher == NPID_NONE && o.ref == NPID_NONE, "when it asks for them");
  signal_free(s);
  s = signal_new(SIGNAL_SPAWN, npid_make(0, 50), far, ref, host_order(far, far, ref));
  s->epoch = 41;
  o = spawn_read_order(&st.vm->config, s);
  ok(o.host && o.link == far && o.watcher == far && o.ref == ref && o.leader == st.vm->config.console,
     "a host's says whom; without a leader it is the console");
  ok(o.epoch == 41, "a link to the sender's node belongs to the connection by which the order came");
  signal_free(s);
  s = signal_new(SIGNAL_SPAWN, npid_make(0, 50), st.tester, ref, host_order(far, far, ref));
  o = spawn_read_order(&st.vm->config, s);
  ok(o.epoch == nodetab_epoch(st.nodes, st.far), "one to another node to the present connection");
  signal_free(s);
}

static void test_tie(void) {
  struct process *p = still_spawn(&st, "receive()");
  npid far = npid_make(st.far, 9), ref = vm_ref(st.vm);
  struct spawn_order o = {.link = far, .watcher = st.tester, .ref = ref, .epoch = 5};
  ok(spawn_tie(p, &o) == 0 && process_linked(p, far) && process_link_outlives(p, far, 4) &&
         !process_link_outlives(p, far, 5) && p->ties->watchers.len == 1,
     "the new process has its sides of link and monitor, by the order's connection");
}

static void test_lost(void) {
  struct process *parent = still_spawn(&st, "receive()");
  struct isolate *iso = parent->isolate;
  npid ref = vm_ref(st.vm), call = vm_ref(st.vm);
  int live = atomic_load(&iso->live);
  uint64_t number = isolate_take_number(iso);
  still_clear(&st);
  ptab_set(&st.vm->ptab, number, &iso->runnable, NULL);
  atomic_fetch_add(&iso->live, 1);
  spawn_lost(
      iso, signal_new(SIGNAL_SPAWN, npid_make(0, number), st.tester, NPID_NONE, order(st.tester, true, ref)),
      "why");
  struct signal *e = still_take(&st, SIGNAL_LINK_EXIT), *d = still_take(&st, SIGNAL_DOWN);
  ok(e && term_is_word(e->term, "memory") && d && d->ref == ref && e->from == npid_make(0, number),
     "an order that cannot be carried out ends link and monitor, as its process would have");
  ok(!vm_alive(st.vm, npid_make(0, number)) && atomic_load(&iso->live) == live, "and its pid is nobody's");
  signal_free(e), signal_free(d);
  number = isolate_take_number(iso);
  ptab_set(&st.vm->ptab, number, &iso->runnable, NULL);
  atomic_fetch_add(&iso->live, 1);
  spawn_lost(
      iso,
      signal_new(SIGNAL_SPAWN, npid_make(0, number), st.tester, call, host_order(st.tester, st.tester, ref)),
      "why");
  struct signal *r = still_take(&st, SIGNAL_REPLY);
  struct term_reader at = term_read(r ? r->term : NULL);
  struct term_value good = term_next(&at), code = term_next(&at);
  ok(r && r->ref == call && good.tag == TERM_FALSE && code.len == 13 && !still_take(&st, SIGNAL_DOWN),
     "a host's order is refused instead, as out of memory");
  signal_free(r);
}

static void test_send(void) {
  struct process *parent = still_spawn(&st, "receive()");
  npid pid = NPID_NONE, ref = vm_ref(st.vm);
  still_clear(&st);
  ok(spawn_send(parent, parent->isolate, order(st.tester, false, NPID_NONE), &pid) == 0 &&
         vm_alive(st.vm, pid),
     "a process has its pid before it runs");
  vm_signal(st.vm, SIGNAL_MONITOR, pid, st.tester, ref, NULL);
  sched_wake(&st.vm->sched, &parent->isolate->runnable);
  still_run(&st);
  struct signal *d = still_take(&st, SIGNAL_DOWN);
  ok(d && d->ref == ref && d->from == pid && !term_is_word(d->term, "noproc") && !vm_alive(st.vm, pid),
     "a signal sent to it at once is not lost, and the failure of its order ends it");
  signal_free(d);
}

/* The node of the caller may be lost between the LINK and the reply of the new process. */
static void test_link_of_call(void) {
  struct process *near = still_spawn(&st, "receive()");
  npid far = npid_make(st.far, 9), other = npid_make(st.far, 10), ref = vm_ref(st.vm), call = vm_ref(st.vm);
  static const char *const whose[] = {"the LINK to the process that asked for a new one has the call's ref",
                                      "one to another process has none"};
  for (int i = 0; i < 2; i++) {
    uint64_t number = isolate_take_number(near->isolate);
    still_clear(&st);
    ptab_set(&st.vm->ptab, number, &near->isolate->runnable, NULL);
    atomic_fetch_add(&near->isolate->live, 1);
    vm_deliver(st.vm, signal_new(SIGNAL_SPAWN, npid_make(0, number), far, call,
                                 host_order(i ? other : far, st.tester, ref)));
    still_run(&st);
    struct signal *link = still_take(&st, SIGNAL_LINK);
    ok(link && link->to == (i ? other : far) && link->ref == (i ? NPID_NONE : call), "%s", whose[i]);
    signal_free(link);
  }
}

static size_t count_processes(void) {
  struct vm_row rows[64];
  uint32_t cursor = 0;
  size_t n = 0;
  while (cursor != VM_ROWS_END) n += vm_rows(st.vm, &cursor, rows, 64);
  return n;
}

/* The process of an order of the host is killed before its code is loaded. */
static void test_killed(void) {
  npid call = vm_ref(st.vm), ref = vm_ref(st.vm), pid = NPID_NONE;
  struct signal *s =
      signal_new(SIGNAL_CALL, NPID_KERNEL, st.tester, call, host_order(st.tester, st.tester, ref));
  still_clear(&st);
  size_t before = count_processes();
  vm_spawn(st.vm, s);
  pid = s->to; /* the same signal is the order; no isolate has taken it yet */
  ok(count_processes() == before + 1 && vm_alive(st.vm, pid), "a host's order has its pid at once");
  vm_signal(st.vm, SIGNAL_EXIT, pid, NPID_NONE, NPID_NONE, term_build("s", "kill"));
  still_run(&st);
  struct signal *r = still_take(&st, SIGNAL_REPLY), *again = still_take(&st, SIGNAL_REPLY);
  struct term_reader at = term_read(r ? r->term : NULL);
  ok(r && r->ref == call && term_next(&at).tag == TERM_FALSE && !again && !vm_alive(st.vm, pid),
     "one that is killed before it has begun is refused, once");
  signal_free(r);
}

/* All numbers of processes are in use. */
static void test_full(void) {
  struct process *parent = still_spawn(&st, "receive()");
  struct isolate *iso = parent->isolate;
  npid pid = NPID_NONE;
  static uint64_t taken[VM_PROCESSES_MAX];
  size_t n = 0, more;
  while (iso->numbers_len) isolate_give_number(iso, isolate_take_number(iso));
  while ((more = ptab_take(&st.vm->ptab, taken + n, VM_PROCESSES_MAX - n))) n += more;
  int live = atomic_load(&iso->live);
  ok(spawn_send(parent, iso, order(st.tester, false, NPID_NONE), &pid) == ERR_BUSY && pid == NPID_NONE &&
         atomic_load(&iso->live) == live,
     "beyond the bound of processes an order is refused");
  npid call = vm_ref(st.vm);
  still_clear(&st);
  vm_spawn(st.vm,
           signal_new(SIGNAL_CALL, NPID_KERNEL, st.tester, call, host_order(st.tester, st.tester, call)));
  struct signal *r = still_take(&st, SIGNAL_REPLY);
  struct term_reader at = term_read(r ? r->term : NULL);
  struct term_value good = term_next(&at), code = term_next(&at);
  ok(r && good.tag == TERM_FALSE && code.len == 4 && memcmp(code.s, "busy", 4) == 0, "and a host's, too");
  signal_free(r);
  ptab_give(&st.vm->ptab, taken, n);
  ok(spawn_send(parent, iso, order(st.tester, false, NPID_NONE), &pid) == 0, "until some have ended");
}

int main(void) {
  still_init(&st, &(struct vm_config){.schedulers = 1});
  test_read();
  test_tie();
  test_lost();
  test_link_of_call();
  test_send();
  test_killed();
  test_full();
  still_run(&st);
  still_finish(&st);
  return tap_end();
}
