/* Handler and scheduler share one thread, so plain order of program text is enough between them; the atomics
 * only tell the compiler (and the other threads, which count ticks of nobody but themselves). */
#include "vm/sched/preempt.h"

#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/sched/sched.h"
#include "vm/sched/state.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum {
  TICK_SIGNAL = SIGURG, /* ignored by default, so one that comes late does no harm */
  FIRST_TICK = 2,       /* ticks until the first one */
  RETRY = 1000,         /* instructions until the hook looks again where no yield is possible */
  RETRY_SPREAD = 256,   /* varied, lest a loop of callbacks is found in the callback every time */
};

/* The first tick comes late: who is busy for a moment only, again and again, mostly sleeps by then. */
static void set_timer(struct scheduler *s, long ns) {
  struct itimerspec every = {.it_interval = {.tv_nsec = ns}, .it_value = {.tv_nsec = FIRST_TICK * ns}};
  timer_settime(s->timer, 0, &every, NULL);
}

static void on_hook(lua_State *L, lua_Debug *ar);

void preempt_now(lua_State *L) {
  lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
}

static unsigned ticks_of(const struct scheduler *s) {
  return atomic_load_explicit(&s->ticks, memory_order_relaxed);
}

/* Has the callback kept the core since its turn began?  A hook left over from another turn does not count. */
static bool overstays(const struct scheduler *s) {
  unsigned switches = atomic_load_explicit(&s->switches, memory_order_relaxed);
  return atomic_load_explicit(&s->hooked, memory_order_relaxed) == switches &&
         ticks_of(s) - atomic_load_explicit(&s->hook_tick, memory_order_relaxed) > PREEMPT_CALLBACK_TICKS;
}

/* The error comes back at every instruction, so no pcall of the callback's own keeps it for long. */
static void end_callback(lua_State *L) {
  const struct process *p = process_of(L);
  const struct isolate *iso = p->isolate;
  bool ends = p->end || atomic_load_explicit(&iso->vm->stopping, memory_order_relaxed);
  if (!ends && !overstays(iso->scheduler)) return;
  preempt_now(L);
  luaL_error(L, ends ? "the process must end"
                     : "a callback of a C function ran for more than a second, and cannot be suspended");
}

bool preempt_due(lua_State *L) {
  if (!lua_gethookmask(L)) return false;
  if (!lua_isyieldable(L)) {
    end_callback(L);
    return false;
  }
  lua_sethook(L, NULL, 0, 0);
  return true;
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (preempt_due(L)) {
    lua_yield(L, 0);
  } else {
    int more = (int)(ticks_of(process_of(L)->isolate->scheduler) % RETRY_SPREAD);
    lua_sethook(L, on_hook, LUA_MASKCOUNT, RETRY + more);
  }
}

static void on_tick(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  struct scheduler *s = info->si_value.sival_ptr;
  if (info->si_code != SI_TIMER || !s) return;
  int saved = errno;
  atomic_fetch_add_explicit(&s->ticks, 1, memory_order_relaxed);
  lua_State *L = atomic_load_explicit(&s->running, memory_order_relaxed);
  unsigned switches = atomic_load_explicit(&s->switches, memory_order_relaxed);
  if (atomic_load(&s->asleep)) {
    atomic_store(&s->ticking, false);
    set_timer(s, 0);
  } else if (L && switches == s->seen && switches != atomic_load_explicit(&s->hooked, memory_order_relaxed)) {
    /* Once a turn: with a deep stack it takes longer than a tick. */
    atomic_store_explicit(&s->hook_tick, ticks_of(s), memory_order_relaxed);
    atomic_store_explicit(&s->hooked, switches, memory_order_relaxed);
    preempt_now(L);
  }
  s->seen = switches;
  if (atomic_load(&s->queued) > 0) sched_kick(s->vm);
  errno = saved;
}

int preempt_install(void) {
  struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigemptyset(&action.sa_mask);
  return sigaction(TICK_SIGNAL, &action, NULL) ? ERR_SYSTEM : 0;
}

void preempt_init(struct scheduler *s) {
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, TICK_SIGNAL);
  pthread_sigmask(SIG_SETMASK, &all, NULL); /* every other signal is the host's */
  struct sigevent event = {
      .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TICK_SIGNAL, .sigev_value.sival_ptr = s};
  event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
  s->has_timer = timer_create(CLOCK_MONOTONIC, &event, &s->timer) == 0;
}

void preempt_arm(struct scheduler *s) {
  if (!s->has_timer || atomic_exchange(&s->ticking, true)) return;
  set_timer(s, SCHED_TICK_NS);
}

void preempt_finish(struct scheduler *s) {
  if (s->has_timer) timer_delete(s->timer);
  s->has_timer = false;
}
