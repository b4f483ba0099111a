/* The signal handler runs on the scheduler's own thread, so the handler and the code it interrupts see each
 * other's writes in program order.  Relaxed atomics keep the compiler from splitting or moving these
 * accesses, and allow other threads to read `ticks` and `asleep`. */
#include "vm/sched/preempt.h"

#include "base/clock.h"

#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum {
  TICK_SIGNAL = SIGURG, /* the default action ignores it, so a late tick does no harm */
  FIRST_TICK = 2,       /* ticks from preempt_arm to the first tick */
  SLICE_NS =
      SCHED_TICK_NS * 3 / 4, /* of processor time: less than a tick, as ticks come a little early or late */
  SHALLOW_US = 100,          /* a hook that took less was not set on a stack of PREEMPT_CALLS_MAX calls */
  RETRY = 1000,              /* instructions from a hook that could not yield to the next hook */
  RETRY_SPREAD = 256, /* fewer than this many instructions are added to RETRY, so that the hook does not
                         always hit the same place of a loop */
};

/* The first tick comes late, because a scheduler that is busy for a short moment mostly sleeps again by then.
 */
static void set_timer(struct scheduler *s, long ns) {
  struct itimerspec every = {.it_interval = {.tv_nsec = ns}, .it_value = {.tv_nsec = FIRST_TICK * ns}};
  timer_settime(s->timer, 0, &every, NULL);
}

static void on_hook(lua_State *L, lua_Debug *ar);

void preempt_now(lua_State *L) {
  lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
}

static struct preemptible *preemptible_of(lua_State *L) {
  return *(struct preemptible **)lua_getextraspace(L);
}

void preempt_interrupt(struct preemptible *p, lua_State *L) {
  p->interrupted = true;
  preempt_now(L);
}

void preempt_check(lua_State *L) {
  struct preemptible *p = preemptible_of(L);
  if (!p->interrupted) return;
  p->interrupted = false;
  lua_pushliteral(L, "interrupted");
  lua_error(L);
}

/* Has the callback run for more than PREEMPT_CALLBACK_TICKS since its green thread was first hooked in this
 * turn? A hook that is left from an earlier turn does not count. */
static bool overstays(const struct scheduler *s) {
  unsigned switches = atomic_load_explicit(&s->switches, memory_order_relaxed);
  return atomic_load_explicit(&s->hooked, memory_order_relaxed) == switches &&
         sched_ticks(s) - atomic_load_explicit(&s->hook_tick, memory_order_relaxed) > PREEMPT_CALLBACK_TICKS;
}

/* Raises an error when the callback has run too long, or when its green thread must end.  The hook stays set,
 * so the error is raised again at each instruction: a pcall inside the callback cannot go on. */
static void end_callback(lua_State *L) {
  const struct preemptible *p = preemptible_of(L);
  const struct scheduler *s = p->runnable->scheduler;
  bool ends = p->end || atomic_load_explicit(&s->all->stopping, memory_order_relaxed);
  if (!ends && !overstays(s)) return;
  preempt_now(L);
  luaL_error(L, ends ? "the process must end"
                     : "a callback of a C function ran for more than a second, and cannot be suspended");
}

/* Returns true when the hook is to yield now.  Raises in a callback that must end. */
static bool must_yield(lua_State *L) {
  if (!lua_gethookmask(L)) return false;
  if (!lua_isyieldable(L)) {
    end_callback(L);
    return false;
  }
  lua_sethook(L, NULL, 0, 0);
  return true;
}

/* The scheduler was held until now: notes which line of Lua's code comes next, which is mostly the one that
 * has made the long call. */
static void note_place(struct scheduler *s, lua_State *L, lua_Debug *ar) {
  atomic_store_explicit(&s->held, false, memory_order_relaxed);
  if (!lua_getinfo(L, "Sl", ar)) return;
  pthread_mutex_lock(&s->place_lock);
  snprintf(s->place, sizeof s->place, "%s:%d", ar->short_src, ar->currentline);
  s->placed = atomic_load_explicit(&s->switches, memory_order_relaxed);
  pthread_mutex_unlock(&s->place_lock);
}

/* Raises an error when the calls are too deep.  lua_getstack takes time for each of them. */
static void check_depth(lua_State *L) {
  const struct preemptible *p = preemptible_of(L);
  lua_Debug ar;
  if (atomic_load_explicit(&p->hook_us, memory_order_relaxed) < SHALLOW_US) return;
  if (!lua_getstack(L, PREEMPT_CALLS_MAX, &ar)) return;
  luaL_where(L, 0);
  lua_pushliteral(L, "stack overflow");
  lua_concat(L, 2);
  lua_error(L);
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  struct scheduler *s = preemptible_of(L)->runnable->scheduler;
  if (atomic_load_explicit(&s->held, memory_order_relaxed)) note_place(s, L, ar);
  preempt_check(L);
  check_depth(L);
  if (must_yield(L)) {
    lua_yield(L, 0);
  } else {
    int more = (int)(sched_ticks(preemptible_of(L)->runnable->scheduler) % RETRY_SPREAD);
    lua_sethook(L, on_hook, LUA_MASKCOUNT, RETRY + more);
  }
}

/* Does work wait that a sleeping scheduler could do: a queued runnable, or a deadline that has passed? */
static bool work_waits(const struct scheduler *s) {
  const struct schedulers *all = s->all;
  return atomic_load(&s->woken.len) > 0 || atomic_load(&all->computing.len) > 0 ||
         clock_ns() >= atomic_load(&all->sleepers.next);
}

/* The time that a green thread has run is the number of ticks that found it running: that costs nothing when
 * a process is resumed, which is far more often. */
static struct ptab_facts *count_tick(lua_State *L) {
  const struct preemptible *p = preemptible_of(L);
  struct ptab_facts *facts = p ? p->facts : NULL;
  if (facts) atomic_fetch_add_explicit(&facts->ticks, 1, memory_order_relaxed);
  return facts;
}

/* Notes whom this tick has found, for preempt_pulse. */
static void note_found(struct scheduler *s, struct ptab_facts *facts, unsigned switches) {
  atomic_store_explicit(&s->found, facts, memory_order_relaxed);
  atomic_store_explicit(&s->found_switches, switches, memory_order_relaxed);
  if (!facts || !atomic_load_explicit(&s->asks, memory_order_relaxed)) return;
  atomic_store_explicit(&s->asks, false, memory_order_relaxed);
  atomic_store_explicit(&s->asked, facts, memory_order_relaxed);
  atomic_store_explicit(&s->asked_switches, switches, memory_order_relaxed);
}

/* How long L's last hook took to set. */
static int64_t hook_ns(lua_State *L) {
  const struct preemptible *p = preemptible_of(L);
  return p ? (int64_t)atomic_load_explicit(&p->hook_us, memory_order_relaxed) * 1000 : 0;
}

/* Notes who has the core.  True when that is the green thread of the last tick, and it has had the core for a
 * slice. */
static bool had_slice(struct scheduler *s, lua_State *L, unsigned switches) {
  int64_t now = clock_thread_ns();
  if (switches == s->seen) return now - s->since >= SLICE_NS + hook_ns(L);
  s->seen = switches;
  s->since = now;
  return false;
}

int64_t preempt_begin_slice(struct scheduler *s) {
  s->seen = atomic_load_explicit(&s->switches, memory_order_relaxed) + 1;
  return s->since = clock_thread_ns();
}

/* At most one hook a turn: on a deep stack lua_sethook takes longer than a tick. */
static void hook(struct scheduler *s, lua_State *L, unsigned switches) {
  enum { US_MAX = 50000 }; /* longer than any stack takes: Lua bounds it */
  struct preemptible *p = preemptible_of(L);
  int64_t before = clock_thread_ns();
  atomic_store_explicit(&s->hook_tick, sched_ticks(s), memory_order_relaxed);
  atomic_store_explicit(&s->hooked, switches, memory_order_relaxed);
  preempt_now(L);
  int64_t us = (clock_thread_ns() - before) / 1000;
  if (p) atomic_store_explicit(&p->hook_us, (uint32_t)(us < US_MAX ? us : US_MAX), memory_order_relaxed);
}

static void on_tick(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  struct scheduler *s = info->si_value.sival_ptr;
  if (info->si_code != SI_TIMER || !s) return;
  int saved = errno;
  atomic_fetch_add_explicit(&s->ticks, 1, memory_order_relaxed);
  lua_State *L = atomic_load_explicit(&s->running, memory_order_relaxed);
  unsigned switches = atomic_load_explicit(&s->switches, memory_order_relaxed);
  note_found(s, L ? count_tick(L) : NULL, switches);
  if (atomic_load(&s->asleep)) {
    atomic_store(&s->ticking, false);
    set_timer(s, 0);
  } else if (L && had_slice(s, L, switches) &&
             switches != atomic_load_explicit(&s->hooked, memory_order_relaxed)) {
    hook(s, L, switches);
  }
  if (atomic_load(&s->all->asleep) > 0 && work_waits(s)) sched_kick(s->all);
  errno = saved;
}

int preempt_install(void) {
  struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigemptyset(&action.sa_mask);
  return sigaction(TICK_SIGNAL, &action, NULL) ? ERR_SYSTEM : 0;
}

/* Says why timer_create failed.  EAGAIN: the user has no pending signal left for the timer
 * (RLIMIT_SIGPENDING). */
static int no_timer(const struct scheduler *s, int code, struct error *e) {
  struct rlimit limit;
  bool polls = sched_is_poller(s);
  const char *what = polls ? "poller" : "scheduler";
  int number = polls ? s->index - s->all->count : s->index;
  if (code != EAGAIN || getrlimit(RLIMIT_SIGPENDING, &limit))
    return error_set(e, ERR_SYSTEM, "%s %d has no timer for its time slices: %s", what, number,
                     strerror(code));
  return error_set(e, ERR_SYSTEM,
                   "%s %d has no timer for its time slices: every scheduler, and each of the two pollers, "
                   "takes one pending signal, and this user may have %llu: raise `ulimit -i`, or start fewer "
                   "schedulers",
                   what, number, (unsigned long long)limit.rlim_cur);
}

int preempt_init(struct scheduler *s, struct error *e) {
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, TICK_SIGNAL);
  pthread_sigmask(SIG_SETMASK, &all, NULL); /* the host's threads take every other signal */
  struct sigevent event = {
      .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TICK_SIGNAL, .sigev_value.sival_ptr = s};
  event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
  if (timer_create(CLOCK_MONOTONIC, &event, &s->timer)) return no_timer(s, errno, e);
  s->has_timer = true;
  return 0;
}

void preempt_arm(struct scheduler *s) {
  if (!s->has_timer || atomic_exchange(&s->ticking, true)) return;
  set_timer(s, SCHED_TICK_NS);
}

void preempt_finish(struct scheduler *s) {
  if (s->has_timer) timer_delete(s->timer);
  s->has_timer = false;
}

struct ptab_facts *preempt_found(struct scheduler *s, unsigned switches) {
  struct ptab_facts *found = atomic_load_explicit(&s->found, memory_order_relaxed);
  if (found && atomic_load_explicit(&s->found_switches, memory_order_relaxed) == switches) return found;
  if (atomic_load_explicit(&s->asked_switches, memory_order_relaxed) == switches)
    return atomic_load_explicit(&s->asked, memory_order_relaxed);
  return NULL;
}

void preempt_pulse(struct scheduler *s, struct preempt_pulse *out) {
  unsigned switches = atomic_load_explicit(&s->switches, memory_order_relaxed);
  out->switches = switches;
  out->progress = switches + atomic_load_explicit(&s->turns, memory_order_relaxed);
  out->idle = !s->has_thread || atomic_load(&s->asleep);
}

void preempt_ask_place(struct scheduler *s) {
  atomic_store_explicit(&s->held, true, memory_order_relaxed);
  atomic_store_explicit(&s->asks, true, memory_order_relaxed);
}

void preempt_place(struct scheduler *s, unsigned switches, char out[SCHED_PLACE_SIZE]) {
  pthread_mutex_lock(&s->place_lock);
  snprintf(out, SCHED_PLACE_SIZE, "%s", s->placed == switches ? s->place : "");
  pthread_mutex_unlock(&s->place_lock);
}
