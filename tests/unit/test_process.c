/* The making of a process when memory runs out; its facts, which other threads read; and how an isolate gives
 * back the memory of ended processes. */
#include "still_vm.h"

#include "tap.h"
#include "vm/process/facts.h"
#include "vm/process/tidy.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static struct still st;

static struct ptab_facts *facts_of(npid pid) {
  return ptab_facts(&st.vm->ptab, npid_number(pid));
}

static void deliver(npid to, const char *word) {
  vm_signal(st.vm, SIGNAL_MESSAGE, to, st.tester, NPID_NONE, term_build("s", word));
}

/* --- out of memory --- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static bool limit_memory(bool limited) {
  (void)limited;
  return false;
}
#else
/* While limited, the kernel gives the test no more memory. */
static bool limit_memory(bool limited) {
  static struct rlimit before;
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%ld", &pages) != 1) abort();
  fclose(f);
  if (!limited) return !setrlimit(RLIMIT_AS, &before);
  if (getrlimit(RLIMIT_AS, &before)) abort();
  struct rlimit now = {(rlim_t)pages * 4096, before.rlim_max};
  return !setrlimit(RLIMIT_AS, &now);
}
#endif

struct makings {
  struct isolate *iso;
  int made;
  bool failed;
};

/* Makes processes until that fails. */
static int make_all(lua_State *L) {
  struct makings *m = lua_touserdata(L, 1);
  while (m->made < 100000) {
    uint64_t number = isolate_take_number(m->iso);
    struct process *p = process_new(L, m->iso, number, st.tester);
    if (!p) {
      isolate_give_number(m->iso, number);
      m->failed = true;
      return 0;
    }
    lua_pop(L, 1);
    atomic_fetch_add(&m->iso->live, 1);
    m->made++;
    process_doom(p, term_build("s", "kill"));
  }
  return 0;
}

static void test_no_memory(void) {
  struct process *first = still_spawn(&st, "receive()");
  struct isolate *iso = first->isolate;
  struct makings m = {.iso = iso};
  if (!limit_memory(true)) {
    puts("# skipped: a sanitizer's memory cannot be limited");
    return;
  }
  int top = lua_gettop(iso->L);
  uint32_t owner = iso->heap.owner;
  lua_pushcfunction(iso->L, make_all);
  lua_pushlightuserdata(iso->L, &m);
  int status = lua_pcall(iso->L, 1, 0, 0);
  limit_memory(false);
  sched_wake(&st.vm->sched, &iso->runnable);
  ok(status == LUA_OK && m.failed, "process_new returns NULL when memory runs out, after %d processes",
     m.made);
  ok(iso->heap.owner == owner && lua_gettop(iso->L) == top, "whoever ran before goes on being charged");
  still_run(&st);
  ok(atomic_load(&iso->live) == 1, "those that were made end");
  m = (struct makings){.iso = iso, .made = 99999};
  lua_pushcfunction(iso->L, make_all);
  lua_pushlightuserdata(iso->L, &m);
  ok(lua_pcall(iso->L, 1, 0, 0) == LUA_OK && m.made == 100000 && !m.failed, "and later ones can be made");
  sched_wake(&st.vm->sched, &iso->runnable);
  still_run(&st);
  vm_signal(st.vm, SIGNAL_EXIT, first->pid, NPID_NONE, NPID_NONE, term_build("s", "kill"));
  still_run(&st);
}

/* --- facts --- */

static void test_facts(void) {
  struct process *p = still_spawn(&st, "T = {} for i = 1, 1000 do T[i] = {i} end receive_match({'never'})"),
                 *q = still_spawn(&st, "receive_match({'never'})");
  npid pid = p->pid;
  struct ptab_facts *f = facts_of(pid);
  ok(f == p->preemptible.facts && f->started == p->started && f->leader == st.tester,
     "a process has its facts");
  ok(f->state == PROCESS_MATCHES && f->mailbox == 0, "its state and its mailbox");
  ok(f->memory == process_memory(p) && f->memory > 50000, "its memory: %lld bytes", (long long)f->memory);
  const char *what = f->what;
  ok(what && strchr(what, ':'), "where its code begins: %s", what ? what : "nowhere");
  for (int i = 0; i < 3; i++) deliver(pid, "other");
  still_run(&st);
  ok(f->mailbox == 3 && facts_of(q->pid)->mailbox == 0, "messages that wait are counted, for each alone");
  vm_signal(st.vm, SIGNAL_EXIT, pid, NPID_NONE, NPID_NONE, term_build("s", "kill"));
  still_run(&st);
  ok(!f->started && !f->what && !p->preemptible.facts, "they end with the process");
  ok(facts_of(q->pid)->what && facts_of(q->pid)->state == PROCESS_MATCHES, "and not those of another");
  vm_signal(st.vm, SIGNAL_EXIT, q->pid, NPID_NONE, NPID_NONE, term_build("s", "kill"));
  still_run(&st);
}

/* --- tidying --- */

static void test_tidy(void) {
  struct process *idle = still_spawn(&st, "receive()");
  struct isolate *iso = idle->isolate;
  ok(tidy_at(iso) == TIMER_NEVER && !tidy_is_due(iso), "an isolate without garbage has nothing to tidy");
  struct process *p = still_spawn(&st, "T = {} for i = 1, 100000 do T[i] = {i} end receive()");
  ok(p->isolate == iso && tidy_at(iso) == TIMER_NEVER, "nor while a process holds what it has made");
  npid pid = p->pid;
  vm_signal(st.vm, SIGNAL_EXIT, pid, NPID_NONE, NPID_NONE, term_build("s", "kill"));
  int64_t before = clock_ns();
  still_run(&st);
  int64_t at = tidy_at(iso), held = heap_held(&iso->heap, HEAP_NOBODY), reserved = heap_reserved(&iso->heap);
  ok(!vm_alive(st.vm, pid) && held > TIDY_LEAST, "an ended one leaves %lld bytes to nobody", (long long)held);
  ok(at >= before + TIDY_DELAY_NS && tidy_at(iso) == at, "which is due some time later, once");
  tidy_now(iso);
  ok(tidy_is_due(iso), "or at once, when memory is short");
  int steps = 0;
  while (tidy_is_due(iso) && steps < 100000) tidy_step(iso), steps++;
  ok(steps > 1 && steps < 100000, "it is done in %d steps", steps);
  ok(heap_held(&iso->heap, HEAP_NOBODY) < held / 10, "what nobody holds is collected");
  ok(heap_reserved(&iso->heap) < reserved / 2, "and returned: %lld of %lld bytes are left",
     (long long)heap_reserved(&iso->heap), (long long)reserved);
  ok(tidy_at(iso) == TIMER_NEVER && vm_alive(st.vm, idle->pid),
     "then nothing is due, and the other one lives");
}

int main(void) {
  static void (*const tests[])(void) = {test_no_memory, test_facts, test_tidy};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    still_init(&st, &(struct vm_config){.schedulers = 1});
    tests[i]();
    still_finish(&st);
  }
  return tap_end();
}
