/* Invariant: an isolate is linked into a queue exactly while its state is QUEUED (or is about to be, or was
 * just now): into one of `home`'s, as `computes` says, under whose lock all three change.
 *
 * Going to sleep: a scheduler says that it is asleep, then looks once more at all queues.  Whoever queues
 * work from outside looks for sleepers after that.  So one of the two sees the other. */
#include "vm/sched/sched.h"

#include "base/clock.h"
#include "vm/process/isolate.h"
#include "vm/sched/preempt.h"
#include "vm/sched/state.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

/* --- queues --- */

/* All of these under the lock of the queue's scheduler. */
static void append(struct isolates *q, struct isolate *iso) {
  iso->next = NULL;
  iso->before = q->last;
  if (q->last) {
    q->last->next = iso;
  } else {
    q->first = iso;
  }
  q->last = iso;
}

static void take_out(struct isolates *q, struct isolate *iso) {
  if (iso->before) {
    iso->before->next = iso->next;
  } else {
    q->first = iso->next;
  }
  if (iso->next) {
    iso->next->before = iso->before;
  } else {
    q->last = iso->before;
  }
}

static void enqueue(struct scheduler *s, struct isolate *iso, bool computes) {
  pthread_mutex_lock(&s->lock);
  append(computes ? &s->computing : &s->woken, iso);
  atomic_store(&iso->home, s);
  atomic_store(&iso->computes, computes);
  atomic_fetch_add(&s->queued, 1);
  pthread_mutex_unlock(&s->lock);
}

/* Those that compute give way to the woken, but not for ever. */
static bool computing_is_due(struct scheduler *s) {
  unsigned ticks = atomic_load_explicit(&s->ticks, memory_order_relaxed);
  if (!s->computing.first) s->computed = ticks; /* nobody waits */
  return ticks - s->computed >= SCHED_PATIENCE;
}

enum choice { DUE, WOKEN, COMPUTING }; /* DUE: a woken one, or one that computes when that is due */

static struct isolate *dequeue(struct scheduler *s, enum choice choice) {
  if (atomic_load(&s->queued) == 0) return NULL;
  pthread_mutex_lock(&s->lock);
  bool computing = choice == DUE ? computing_is_due(s) : choice == COMPUTING;
  struct isolates *q = computing ? &s->computing : &s->woken;
  struct isolate *iso = q->first;
  if (iso) {
    take_out(q, iso);
    atomic_store(&iso->home, NULL);
    atomic_fetch_sub(&s->queued, 1);
  }
  pthread_mutex_unlock(&s->lock);
  return iso;
}

/* Somebody was woken in an isolate that is queued as one that computes. */
static void promote(struct isolate *iso) {
  struct scheduler *s = atomic_load(&iso->home);
  if (!s || !atomic_load(&iso->computes)) return;
  pthread_mutex_lock(&s->lock);
  if (atomic_load(&iso->home) == s && atomic_load(&iso->computes)) {
    take_out(&s->computing, iso);
    append(&s->woken, iso);
    atomic_store(&iso->computes, false);
  }
  pthread_mutex_unlock(&s->lock);
}

/* Our own work first, then the others'; but whoever was woken, anywhere, before those that compute. */
static struct isolate *find_work(struct scheduler *s) {
  struct vm *vm = s->vm;
  struct isolate *iso = dequeue(s, DUE);
  for (int i = 1; i < vm->schedulers && !iso; i++)
    iso = dequeue(&vm->scheduler[(s->index + i) % vm->schedulers], WOKEN);
  for (int i = 0; i < vm->schedulers && !iso; i++)
    iso = dequeue(&vm->scheduler[(s->index + i) % vm->schedulers], COMPUTING);
  return iso;
}

/* One that computed has had its turn, however long that was. */
static void run(struct isolate *iso, struct scheduler *s) {
  bool computes = atomic_load(&iso->computes);
  preempt_arm(s);
  isolate_run(iso, s);
  if (computes) s->computed = atomic_load_explicit(&s->ticks, memory_order_relaxed);
}

struct scheduler *sched_self(struct vm *vm) {
  return pthread_getspecific(vm->self);
}

/* --- waking --- */

/* True for the one caller that turns s from asleep to awake. */
static bool claim(struct scheduler *s) {
  bool asleep = true;
  return atomic_load(&s->asleep) && atomic_compare_exchange_strong(&s->asleep, &asleep, false);
}

static bool rouse(struct scheduler *s) {
  if (!claim(s)) return false;
  atomic_fetch_sub(&s->vm->asleep, 1);
  uint64_t one = 1;
  ssize_t n = write(s->event, &one, sizeof one); /* cannot fail: the counter never nears its limit */
  return n == sizeof one;
}

void sched_kick(struct vm *vm) {
  if (atomic_load(&vm->asleep) == 0) return;
  for (int i = 0; i < vm->schedulers; i++)
    if (rouse(&vm->scheduler[i])) return;
}

/* From outside, work goes to a scheduler that sleeps, or to each in turn. */
static void enqueue_from_outside(struct vm *vm, struct isolate *iso) {
  struct scheduler *s = &vm->scheduler[atomic_fetch_add(&vm->rotor, 1) % (unsigned)vm->schedulers];
  for (int i = 0; i < vm->schedulers && !atomic_load(&s->asleep); i++)
    if (atomic_load(&vm->scheduler[i].asleep)) s = &vm->scheduler[i];
  enqueue(s, iso, false);
  if (!rouse(s)) sched_kick(vm);
}

void sched_wake(struct vm *vm, struct isolate *iso) {
  int state = atomic_load_explicit(&iso->state, memory_order_relaxed), next;
  do {
    next = state == ISOLATE_IDLE ? ISOLATE_QUEUED : state == ISOLATE_RUNNING ? ISOLATE_NOTIFIED : state;
  } while (!atomic_compare_exchange_weak(&iso->state, &state, next));
  if (state == ISOLATE_QUEUED) promote(iso);
  if (state != ISOLATE_IDLE) return;
  struct scheduler *s = sched_self(vm);
  if (s) {
    enqueue(s, iso, false);
  } else {
    enqueue_from_outside(vm, iso);
  }
}

void sched_requeue(struct scheduler *s, struct isolate *iso, bool computes, int64_t deadline) {
  if (computes && deadline != TIMER_NEVER) sched_sleep_until(iso, deadline);
  atomic_exchange(&iso->state, ISOLATE_QUEUED);
  enqueue(s, iso, computes);
  bool due = deadline != TIMER_NEVER && deadline <= clock_ns();
  if (computes && (due || atomic_load(&iso->inbox.head))) promote(iso); /* came before it was queued */
}

/* --- isolates that sleep --- */

static void note_next(struct sleepers *sl) {
  atomic_store(&sl->next, timers_next(&sl->timers));
}

void sched_sleep_until(struct isolate *iso, int64_t at) {
  struct sleepers *sl = &iso->vm->sleepers;
  pthread_mutex_lock(&sl->lock);
  if (!timer_armed(&iso->sleep) || at < iso->sleep.at) {
    timers_remove(&sl->timers, &iso->sleep);
    iso->sleep.at = at;
    /* Without memory for the heap the isolate stays awake instead: slow, but never late. */
    if (timers_add(&sl->timers, &iso->sleep)) atomic_store(&iso->state, ISOLATE_NOTIFIED);
    note_next(sl);
  }
  pthread_mutex_unlock(&sl->lock);
}

/* Wakes the isolates whose time has come. */
static void wake_due(struct vm *vm, int64_t now) {
  struct sleepers *sl = &vm->sleepers;
  if (now < atomic_load(&sl->next)) return;
  pthread_mutex_lock(&sl->lock);
  struct timer *t;
  while ((t = timers_due(&sl->timers, now))) sched_wake(vm, isolate_of_sleep(t));
  note_next(sl);
  pthread_mutex_unlock(&sl->lock);
}

/* --- a scheduler's sleep --- */

static bool work_waits(struct vm *vm) {
  if (atomic_load(&vm->stopping)) return true;
  for (int i = 0; i < vm->schedulers; i++)
    if (atomic_load(&vm->scheduler[i].queued) > 0) return true;
  return false;
}

static void wait_event(struct scheduler *s, int64_t until) {
  struct pollfd fd = {.fd = s->event, .events = POLLIN};
  struct timespec left, *timeout = NULL;
  if (until != TIMER_NEVER) {
    int64_t ns = until - clock_ns();
    if (ns < 0) ns = 0;
    left = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    timeout = &left;
  }
  ppoll(&fd, 1, timeout, NULL);
}

/* One sleeper is enough to keep the deadlines: the first whose alarm would be the earliest. */
static int64_t cover(struct sleepers *sl) {
  int64_t next = atomic_load(&sl->next), covered = atomic_load(&sl->covered);
  while (next < covered)
    if (atomic_compare_exchange_weak(&sl->covered, &covered, next)) return next;
  return TIMER_NEVER;
}

static void uncover(struct sleepers *sl, int64_t mine) {
  if (mine != TIMER_NEVER) atomic_compare_exchange_strong(&sl->covered, &mine, TIMER_NEVER);
}

static void fall_asleep(struct scheduler *s) {
  struct vm *vm = s->vm;
  int64_t until = cover(&vm->sleepers);
  atomic_fetch_add(&vm->asleep, 1);
  atomic_store(&s->asleep, true);
  if (!work_waits(vm)) wait_event(s, until);
  uncover(&vm->sleepers, until);
  if (claim(s)) {
    atomic_fetch_sub(&vm->asleep, 1);
  } else { /* roused: eat the event, which is there or about to be */
    uint64_t n;
    while (read(s->event, &n, sizeof n) < 0 && errno == EINTR) continue;
  }
}

static void *sched_main(void *data) {
  struct scheduler *s = data;
  struct vm *vm = s->vm;
  pthread_setspecific(vm->self, s);
  prctl(PR_SET_NAME, "scheduler");
  prctl(PR_SET_TIMERSLACK, 1UL);
  preempt_init(s);
  while (!atomic_load(&vm->stopping)) {
    wake_due(vm, clock_ns());
    struct isolate *iso = find_work(s);
    if (iso) {
      run(iso, s);
    } else {
      fall_asleep(s);
    }
  }
  preempt_finish(s);
  return NULL;
}

/* --- life --- */

int sched_init(struct scheduler *s, struct vm *vm, int index) {
  *s = (struct scheduler){.vm = vm, .index = index};
  s->event = eventfd(0, EFD_CLOEXEC);
  if (s->event < 0) return ERR_SYSTEM;
  pthread_mutex_init(&s->lock, NULL);
  return 0;
}

int sched_start(struct scheduler *s) {
  if (pthread_create(&s->thread, NULL, sched_main, s)) return ERR_SYSTEM;
  s->running_thread = true;
  return 0;
}

int sched_join(struct scheduler *s, const struct timespec *until) {
  if (!s->running_thread) return 0;
  rouse(s);
  if (pthread_timedjoin_np(s->thread, NULL, until)) return ERR_TIMEOUT;
  s->running_thread = false;
  return 0;
}

void sched_finish(struct scheduler *s) {
  if (s->event < 0) return;
  close(s->event);
  pthread_mutex_destroy(&s->lock);
}
