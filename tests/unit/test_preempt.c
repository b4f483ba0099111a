/* Preemption of coroutines by a scheduler without a vm: a coroutine that does not give up the core is made to
 * yield, and later continues at the same place; inside a callback of C, where it cannot yield, it gets an
 * error. */
#include "core/term.h"
#include "vm/sched/preempt.h"

#include "tap.h"

#include <lauxlib.h>
#include <lualib.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* A runnable with one coroutine. */
struct hog {
  struct runnable runnable; /* first */
  struct preemptible preemptible;
  lua_State *main, *L;
  atomic_int yields_wanted; /* it is run until it was made to yield this often, or has ended */
  int yields, status;
  sem_t done;
};

static struct schedulers all;

static void hog_init(struct hog *h, const char *code) {
  *h = (struct hog){.yields_wanted = 1, .main = luaL_newstate()};
  luaL_openlibs(h->main);
  h->L = lua_newthread(h->main);
  h->preemptible.runnable = &h->runnable;
  *(struct preemptible **)lua_getextraspace(h->L) = &h->preemptible;
  if (luaL_loadstring(h->L, code)) abort();
  sem_init(&h->done, 0, 0);
}

static void hog_finish(struct hog *h) {
  sem_destroy(&h->done);
  lua_close(h->main);
}

static int64_t counter(struct hog *h) {
  lua_getglobal(h->main, "n");
  int64_t n = lua_tointeger(h->main, -1);
  lua_pop(h->main, 1);
  return n;
}

/* One resume, as process.c does it. */
static void resume(struct hog *h, struct scheduler *s) {
  int nresults;
  preempt_enter(s, h->L);
  h->status = lua_resume(h->L, h->main, 0, &nresults);
  preempt_leave(s);
}

static void test_now(void) {
  struct hog h;
  struct scheduler s = {.all = &all};
  hog_init(&h, "n = 0 while true do n = n + 1 end");
  h.runnable.scheduler = &s;
  preempt_now(h.L);
  resume(&h, &s);
  ok(h.status == LUA_YIELD && counter(&h) <= 1,
     "preempt_now makes a coroutine yield at its next instruction");
  ok(!lua_gethookmask(h.L), "and is over then: the coroutine goes on at full speed");
  ok(!atomic_load(&s.running) && atomic_load(&s.switches) == 1, "nobody has the core after that");
  hog_finish(&h);
}

static void test_must_end(void) {
  struct hog h;
  struct scheduler s = {.all = &all};
  hog_init(&h, "n = 0 table.sort({3, 2, 1}, function()\n"
               "  while true do pcall(function() while true do n = n + 1 end end) end end)");
  h.runnable.scheduler = &s;
  h.preemptible.end = term_build("s", "killed");
  h.status = LUA_YIELD;
  while (h.status == LUA_YIELD && counter(&h) < 1000) {
    preempt_now(h.L);
    resume(&h, &s);
  }
  ok(h.status == LUA_ERRRUN && strstr(lua_tostring(h.L, -1), "the process must end"),
     "a callback of a process that must end fails, whatever it catches");
  term_unref(h.preemptible.end);
  hog_finish(&h);
}

static void test_no_timer(void) {
  struct rlimit was, none;
  struct schedulers four = {.count = 4};
  struct scheduler s = {.all = &four, .index = 3}, poller = {.all = &four, .index = 5};
  struct error e = {0}, of_poller = {0};
  sigset_t mask;
  getrlimit(RLIMIT_SIGPENDING, &was);
  none = (struct rlimit){0, was.rlim_max};
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  setrlimit(RLIMIT_SIGPENDING, &none);
  int code = preempt_init(&s, &e), poller_code = preempt_init(&poller, &of_poller);
  setrlimit(RLIMIT_SIGPENDING, &was);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  ok(code == ERR_SYSTEM && strstr(e.text, "scheduler 3") && strstr(e.text, "ulimit -i"),
     "a scheduler that gets no timer says which limit is in the way");
  ok(poller_code == ERR_SYSTEM && strstr(of_poller.text, "poller 1"), "so does a poller");
  preempt_arm(&s);
  ok(!s.has_timer && !atomic_load(&s.ticking), "and arms none");
  preempt_finish(&s);
}

#ifndef __SANITIZE_THREAD__ /* ThreadSanitizer delays signals, so nothing is preempted */
static void run(struct runnable *r, struct scheduler *s) {
  struct hog *h = (struct hog *)r;
  resume(h, s);
  h->yields += h->status == LUA_YIELD;
  if (h->status == LUA_YIELD && h->yields < atomic_load(&h->yields_wanted)) {
    sched_requeue(r, (struct sched_demand){.normal = 1, .deadline = TIMER_NEVER});
    return;
  }
  while (!sched_rest(r)) continue;
  sem_post(&h->done); /* no thread wakes it before */
}

static bool finishes(struct hog *h) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 60;
  sched_wake(&all, &h->runnable);
  return sem_timedwait(&h->done, &until) == 0;
}

static void test_loop(void) {
  struct hog h;
  hog_init(&h, "n = 0 while true do n = n + 1 end");
  ok(finishes(&h) && h.status == LUA_YIELD, "an endless loop is made to yield");
  int64_t before = counter(&h);
  h.yields_wanted = 5;
  ok(finishes(&h) && h.yields == 5 && counter(&h) > before, "goes on where it was, and is made to again");
  hog_finish(&h);
}

static void test_two(void) {
  struct hog h, other;
  hog_init(&h, "n = 0 while true do n = n + 1 end");
  hog_init(&other, "n = 1");
  h.yields_wanted = 1 << 30;
  sched_wake(&all, &h.runnable);
  ok(finishes(&other) && other.status == LUA_OK && counter(&other) == 1,
     "one that is woken beside an endless loop has its turn");
  atomic_store(&h.yields_wanted,
               0); /* the loop's next yield is its last; its scheduler alone runs it until then */
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 60;
  ok(sem_timedwait(&h.done, &until) == 0 && h.status == LUA_YIELD,
     "and the loop gives the core back after that, too");
  hog_finish(&h), hog_finish(&other);
}

static void test_callback(void) {
  struct hog h;
  hog_init(&h, "n = 0 table.sort({3, 2, 1}, function()\n"
               "  while true do pcall(function() while true do n = n + 1 end end) end end)");
  ok(finishes(&h) && h.status == LUA_ERRRUN && strstr(lua_tostring(h.L, -1), "more than a second"),
     "an endless callback of a C function fails after a second, whatever it catches");
  hog_finish(&h);
}

/* A coroutine whose last hook took long to set, because of its deep stack, then has the core for as long. */
static void test_slow_hook(void) {
  enum { SLOW = 20 };
  struct hog h;
  hog_init(&h, "n = 0 while true do n = n + 1 end");
  h.preemptible.hook_us = SLOW * SCHED_TICK_NS / 1000;
  unsigned before = sched_ticks(&all.scheduler[0]);
  bool good = finishes(&h);
  unsigned ticks = sched_ticks(&all.scheduler[0]) - before;
  ok(good && ticks > SLOW, "after a hook that took %d ticks the next one waits: %u", SLOW, ticks);
  ok(h.preemptible.hook_us < SLOW * SCHED_TICK_NS / 1000, "and is measured again: %u us",
     h.preemptible.hook_us);
  hog_finish(&h);
}

/* Lua alone would let it be a million calls deep. */
static void test_deep(void) {
  struct hog h;
  lua_Debug ar;
  hog_init(&h, "local function f() return 1 + f() end\nf()");
  h.yields_wanted = 1000000;
  ok(finishes(&h) && h.status == LUA_ERRRUN, "a recursion without end ends with an error");
  is(lua_tostring(h.L, -1), "[string \"local function f() return 1 + f() end...\"]:1: stack overflow",
     "which says what and where");
  ok(lua_getstack(h.L, PREEMPT_CALLS_MAX, &ar) && !lua_getstack(h.L, 4 * PREEMPT_CALLS_MAX, &ar),
     "soon after %d calls", PREEMPT_CALLS_MAX);
  hog_finish(&h);
  hog_init(&h, "local function f(i) if i == 0 then return 0 end return 1 + f(i - 1) end n = f(199990)");
  h.yields_wanted = 1000000;
  ok(finishes(&h) && h.status == LUA_OK && counter(&h) == 199990, "a recursion of 199,990 calls ends well");
  hog_finish(&h);
}

static void test_threads(void) {
  struct error e;
  struct timespec until;
  if (sched_init(&all, 1, run) || sched_start(&all, &e)) abort();
  test_loop();
  test_two();
  test_callback();
  test_slow_hook();
  test_deep();
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 60;
  if (sched_stop(&all, &until)) abort();
  sched_finish(&all);
}
#else
static void test_threads(void) {}
#endif

int main(void) {
  test_now();
  test_must_end();
  test_no_timer();
  test_threads();
  return tap_end();
}
