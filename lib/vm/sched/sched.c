/* Invariant: a runnable is linked into a queue exactly while its state is QUEUED, is about to become QUEUED,
 * or has just ceased to be QUEUED.  `next` and `prev` change under the lock of that queue; `computes`, `turn`
 * and `class` under the lock of the heaps `computing`, which is taken before that of a scheduler.
 *
 * Ordering of sleep: a scheduler sets `asleep`, and then looks at all queues once more.  Another thread
 * queues its work first, and then looks for sleeping schedulers; a poller, which looks for no work itself, is
 * such a thread.  So either the scheduler sees the work, or
 * the thread sees the sleeper.  promote counts a runnable in its new queue before it leaves the count of the
 * old one, and work_waits reads the old one first, so that it sees the runnable in one of them.
 *
 * Deadlines.  Three look at `sleepers`: the sleeping scheduler that covers the earliest deadline it knew of
 * when it fell asleep; every busy scheduler between two turns; and every tick of a busy scheduler, which
 * wakes a sleeping one when a deadline has passed.  A later and earlier deadline can only come from a busy
 * scheduler, which goes on to tick, or falls asleep and covers it.  So while a scheduler sleeps, a deadline
 * is late by two ticks (FIRST_TICK) and a wake-up at most.  It is later in three cases: no scheduler sleeps,
 * then by the turns that go before; the runnable itself is running, then by the rest of its turn, which a
 * long call of C makes long; and the only busy schedulers are where no signal reaches them, in the
 * uninterruptible sleep of a system call. */
#include "vm/sched/sched.h"

#include "base/clock.h"
#include "vm/sched/preempt.h"

#include <linux/futex.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- queues --- */

/* append and take_out are called under the lock of the queue. */
static void append(struct run_queue *q, struct runnable *r) {
  r->next = NULL;
  r->prev = q->last;
  if (q->last) {
    q->last->next = r;
  } else {
    q->first = r;
  }
  q->last = r;
  atomic_fetch_add(&q->len, 1);
}

static void take_out(struct run_queue *q, struct runnable *r) {
  if (r->prev) {
    r->prev->next = r->next;
  } else {
    q->first = r->next;
  }
  if (r->next) {
    r->next->prev = r->prev;
  } else {
    q->last = r->prev;
  }
  atomic_fetch_sub(&q->len, 1);
}

static void enqueue(struct scheduler *s, struct runnable *r) {
  pthread_mutex_lock(&s->woken.lock);
  append(&s->woken, r);
  pthread_mutex_unlock(&s->woken.lock);
}

static struct runnable *dequeue(struct run_queue *q) {
  if (atomic_load(&q->len) == 0) return NULL;
  pthread_mutex_lock(&q->lock);
  struct runnable *r = q->first;
  if (r) take_out(q, r);
  pthread_mutex_unlock(&q->lock);
  return r;
}

/* --- the computing runnables --- */

/* Virtual time: nanoseconds of processor time for each process.  A runnable that cannot keep up, as it has
 * one core at most, or that was not there, is at most BEHIND late: it does not get more than that in one go.
 * One that a long call of C has carried away is at most AHEAD early. */
enum { BEHIND = 16 * SCHED_TICK_NS, AHEAD = 64 * SCHED_TICK_NS };

/* Called under the lock, as is leave_heap.  False: no memory. */
static bool enter_heap(struct computing *c, struct runnable *r) {
  if (timers_add(&c->order[r->class], &r->turn)) return false;
  atomic_fetch_add(&c->len, 1);
  if (r->class == SCHED_CLASS_NORMAL) atomic_fetch_add(&c->normal, 1);
  atomic_store(&r->computes, true);
  return true;
}

static void leave_heap(struct computing *c, struct runnable *r) {
  timers_remove(&c->order[r->class], &r->turn);
  atomic_store(&r->computes, false);
  if (r->class == SCHED_CLASS_NORMAL) atomic_fetch_sub(&c->normal, 1);
  atomic_fetch_sub(&c->len, 1);
}

/* Where processes that did not compute before begin: with those that wait for their turn and have had the
 * least.  These can be far behind `now`, as one process alone in its runnable goes a long way in a turn. */
static int64_t beginning(const struct computing *c, enum sched_class class) {
  int64_t next = timers_next(&c->order[class]),
          now = atomic_load_explicit(&c->now[class], memory_order_relaxed);
  return next < now ? next : now;
}

static int64_t clamp(int64_t n, int64_t least, int64_t most) {
  return n < least ? least : n > most ? most : n;
}

/* Charges r, which is in no heap, for its turn.  Its virtual time is the mean of those of its processes: as
 * many as before have gone on, the others have joined them.  A runnable in which none computed may have an
 * advance, which it keeps, but it has not been kept waiting.  Called under the lock. */
static void charge(struct computing *c, struct runnable *r, const struct sched_demand *d) {
  enum sched_class class = d->normal || !d->low ? SCHED_CLASS_NORMAL : SCHED_CLASS_LOW;
  int64_t all = class == SCHED_CLASS_LOW ? d->low : d->normal ? d->normal : 1;
  int64_t went_on = clamp(r->members, 1, all);
  int64_t now = atomic_load_explicit(&c->now[class], memory_order_relaxed), start = beginning(c, class),
          at = r->turn.at;
  if (class != r->class || (!r->members && at < start)) at = start;
  int64_t ahead =
      went_on * clamp(at - now, -BEHIND, AHEAD) + (all - went_on) * clamp(start - now, -BEHIND, 0);
  r->class = class;
  r->members = (unsigned)all;
  r->turn.at = now + clamp((ahead + d->used) / all, -BEHIND, AHEAD);
}

static void charge_woken(struct computing *c, struct runnable *r, const struct sched_demand *d) {
  pthread_mutex_lock(&c->lock);
  charge(c, r, d);
  pthread_mutex_unlock(&c->lock);
}

static bool enqueue_computing(struct computing *c, struct runnable *r, const struct sched_demand *d) {
  pthread_mutex_lock(&c->lock);
  charge(c, r, d);
  bool done = enter_heap(c, r);
  pthread_mutex_unlock(&c->lock);
  return done;
}

static struct runnable *runnable_of_turn(struct timer *t) {
  return (struct runnable *)((char *)t - offsetof(struct runnable, turn));
}

/* Called under the lock. */
static enum sched_class next_class(struct scheduler *s) {
  struct computing *c = &s->all->computing;
  bool normal = c->order[SCHED_CLASS_NORMAL].len, low = c->order[SCHED_CLASS_LOW].len;
  if (!normal || (low && s->above_low >= SCHED_LOW_TURN - 1)) {
    s->above_low = 0;
    return SCHED_CLASS_LOW;
  }
  s->above_low = low ? s->above_low + 1 : 0;
  return SCHED_CLASS_NORMAL;
}

static struct runnable *dequeue_computing(struct scheduler *s) {
  struct computing *c = &s->all->computing;
  struct runnable *r = NULL;
  if (atomic_load(&c->len) == 0) return NULL;
  pthread_mutex_lock(&c->lock);
  enum sched_class class = next_class(s);
  if (c->order[class].len) {
    r = runnable_of_turn(c->order[class].heap[0].timer);
    leave_heap(c, r);
    if (r->turn.at > c->now[class]) atomic_store_explicit(&c->now[class], r->turn.at, memory_order_relaxed);
  }
  pthread_mutex_unlock(&c->lock);
  return r;
}

bool sched_may_compute(const struct scheduler *s, const struct runnable *r, enum sched_class class) {
  const struct computing *c = &s->all->computing;
  if (s->computes) return true;
  if (class == SCHED_CLASS_LOW && atomic_load_explicit(&s->woken.len, memory_order_relaxed) > 0) return false;
  if (atomic_load_explicit(&c->len, memory_order_relaxed) == 0) return true;
  if (class == SCHED_CLASS_LOW) return false;
  return atomic_load_explicit(&c->normal, memory_order_relaxed) == 0 ||
         r->turn.at <= atomic_load_explicit(&c->now[class], memory_order_relaxed);
}

bool sched_may_linger(struct scheduler *s) {
  bool may = !s->lingered && atomic_load_explicit(&s->woken.len, memory_order_relaxed) == 0 &&
             atomic_load_explicit(&s->all->computing.len, memory_order_relaxed) == 0;
  s->lingered |= may;
  return may;
}

/* s, or for a poller each scheduler in turn. */
static struct scheduler *with_queue(struct schedulers *all, struct scheduler *s) {
  if (s && !sched_is_poller(s)) return s;
  return &all->scheduler[atomic_fetch_add(&all->rotor, 1) % (unsigned)all->count];
}

/* Moves a runnable that was woken while it was queued as computing to a queue of the woken: that of the
 * calling thread's scheduler, or of the one that ran it last. */
static void promote(struct schedulers *all, struct runnable *r) {
  if (!atomic_load(&r->computes)) return;
  struct scheduler *self = sched_self(all);
  struct computing *c = &all->computing;
  pthread_mutex_lock(&c->lock);
  if (atomic_load(&r->computes)) {
    atomic_fetch_add(&c->len, 1); /* stays counted here until it is counted there */
    leave_heap(c, r);
    enqueue(with_queue(all, self ? self : r->scheduler), r);
    atomic_fetch_sub(&c->len, 1);
  }
  pthread_mutex_unlock(&c->lock);
  if (!self || sched_is_poller(self)) sched_kick(all);
}

/* Do processes compute in the next woken runnable that have had less than the next computing one?  They are a
 * crowd that was woken at once, and their turn as woken ones is also their share.  A runnable whose woken
 * processes only hand each other messages is none: those of it that compute have nothing of its turns. */
static bool woken_have_less(struct scheduler *s) {
  struct computing *c = &s->all->computing;
  pthread_mutex_lock(&c->lock);
  int64_t next = timers_next(&c->order[SCHED_CLASS_NORMAL]);
  pthread_mutex_lock(&s->woken.lock);
  const struct runnable *r = s->woken.first;
  bool less = r && r->joining && r->members && r->class == SCHED_CLASS_NORMAL && r->turn.at < next;
  pthread_mutex_unlock(&s->woken.lock);
  pthread_mutex_unlock(&c->lock);
  return less;
}

/* Have the computing runnables waited for SCHED_PATIENCE ticks? */
static bool computing_is_due(struct scheduler *s) {
  unsigned ticks = sched_ticks(s);
  if (atomic_load(&s->all->computing.len) == 0) s->computed = ticks;
  if (ticks - s->computed < SCHED_PATIENCE) return false;
  if (!woken_have_less(s)) return true;
  s->computed = ticks;
  return false;
}

/* The next runnable, in this order: a computing one when those have waited for SCHED_PATIENCE ticks, one that
 * is woken in this scheduler, woken in another, computing. */
static struct runnable *find_work(struct scheduler *s) {
  struct schedulers *all = s->all;
  struct runnable *r = computing_is_due(s) ? dequeue_computing(s) : NULL;
  s->computes = r;
  for (int i = 0; i < all->count && !r; i++) r = dequeue(&all->scheduler[(s->index + i) % all->count].woken);
  if (r) return r;
  s->computes = true;
  return dequeue_computing(s);
}

static void run_turn(struct runnable *r, struct scheduler *s) {
  atomic_store_explicit(&s->turns, s->turns + 1, memory_order_relaxed);
  s->lingered = false;
  preempt_arm(s);
  atomic_exchange(&r->state, RUNNABLE_RUNNING);
  r->scheduler = s;
  s->all->run(r, s);
  if (s->computes) s->computed = sched_ticks(s);
}

bool sched_step(struct scheduler *s) {
  struct runnable *r = find_work(s);
  if (r) run_turn(r, s);
  return r;
}

struct scheduler *sched_self(struct schedulers *all) {
  return pthread_getspecific(all->self);
}

/* --- waking --- */

/* Marks s as awake.  True for the one caller that found it asleep. */
static bool claim(struct scheduler *s) {
  unsigned asleep = 1;
  return atomic_load(&s->asleep) && atomic_compare_exchange_strong(&s->asleep, &asleep, 0);
}

/* The thread may sleep again by the time of the system call: it then looks for work once more. */
static bool rouse(struct scheduler *s) {
  if (!claim(s)) return false;
  atomic_fetch_sub(&s->all->asleep, 1);
  syscall(SYS_futex, &s->asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  return true;
}

void sched_kick(struct schedulers *all) {
  if (atomic_load(&all->asleep) == 0) return;
  for (int i = 0; i < all->count; i++)
    if (rouse(&all->scheduler[i])) return;
}

void sched_place(struct schedulers *all, struct runnable *r) {
  struct scheduler *s = with_queue(all, r->scheduler);
  if (!atomic_load(&s->asleep)) s = with_queue(all, NULL);
  for (int i = 0; i < all->count && !atomic_load(&s->asleep); i++)
    if (atomic_load(&all->scheduler[i].asleep)) s = &all->scheduler[i];
  enqueue(s, r);
  if (!rouse(s)) sched_kick(all);
}

void sched_wake(struct schedulers *all, struct runnable *r) {
  int state = atomic_load_explicit(&r->state, memory_order_relaxed), next;
  do {
    next = state == RUNNABLE_IDLE ? RUNNABLE_QUEUED : state == RUNNABLE_RUNNING ? RUNNABLE_NOTIFIED : state;
  } while (!atomic_compare_exchange_weak(&r->state, &state, next));
  if (state == RUNNABLE_QUEUED) promote(all, r);
  if (state != RUNNABLE_IDLE) return;
  struct scheduler *s = sched_self(all);
  if (s && !sched_is_poller(s))
    enqueue(s, r);
  else if (s || !pollers_take(all, r))
    sched_place(all, r);
}

/* --- the end of a turn --- */

static void note_load(struct runnable *r, unsigned computing) {
  if (sched_load(r) != computing) atomic_store_explicit(&r->load, computing, memory_order_relaxed);
}

bool sched_rest(struct runnable *r) {
  int running = RUNNABLE_RUNNING;
  note_load(r, 0);
  r->members = 0;
  r->joining = false;
  if (atomic_compare_exchange_strong(&r->state, &running, RUNNABLE_IDLE)) return true;
  atomic_exchange(&r->state, RUNNABLE_RUNNING);
  return false;
}

void sched_requeue(struct runnable *r, struct sched_demand d) {
  struct scheduler *s = r->scheduler;
  if (!d.woken && d.deadline != TIMER_NEVER) sched_sleep_until(r, d.deadline);
  note_load(r, d.normal + (d.low + SCHED_LOW_TURN - 1) / SCHED_LOW_TURN);
  if (!d.normal && !d.low) r->members = 0;
  r->joining = d.woken && d.used;
  if (d.woken && d.used) charge_woken(&s->all->computing, r, &d);
  atomic_exchange(&r->state, RUNNABLE_QUEUED);
  if (d.woken || !enqueue_computing(&s->all->computing, r, &d)) {
    if (sched_is_poller(s))
      sched_place(s->all, r);
    else
      enqueue(s, r);
    return;
  }
  bool due = d.deadline != TIMER_NEVER && d.deadline <= clock_ns();
  if (due || atomic_load(&r->inbox.head)) promote(s->all, r); /* it was woken before it was in the queue */
}

/* --- deadlines --- */

static void note_next(struct sleepers *sl) {
  atomic_store(&sl->next, timers_next(&sl->timers));
}

void sched_sleep_until(struct runnable *r, int64_t at) {
  struct sleepers *sl = &r->scheduler->all->sleepers;
  pthread_mutex_lock(&sl->lock);
  if (!timer_armed(&r->sleep) || at < r->sleep.at) {
    timers_remove(&sl->timers, &r->sleep);
    r->sleep.at = at;
    /* When memory runs out r does not sleep: it polls its deadline, which is slow but never late. */
    if (timers_add(&sl->timers, &r->sleep)) atomic_store(&r->state, RUNNABLE_NOTIFIED);
    note_next(sl);
  }
  pthread_mutex_unlock(&sl->lock);
}

static struct runnable *runnable_of_sleep(struct timer *t) {
  return (struct runnable *)((char *)t - offsetof(struct runnable, sleep));
}

/* Wakes the runnables whose deadline has come. */
static void wake_due(struct schedulers *all, int64_t now) {
  struct sleepers *sl = &all->sleepers;
  if (now < atomic_load(&sl->next)) return;
  pthread_mutex_lock(&sl->lock);
  struct timer *t;
  while ((t = timers_due(&sl->timers, now))) sched_wake(all, runnable_of_sleep(t));
  note_next(sl);
  pthread_mutex_unlock(&sl->lock);
}

/* --- a scheduler's sleep --- */

static bool work_waits(struct schedulers *all) {
  if (atomic_load(&all->stopping)) return true;
  if (atomic_load(&all->computing.len) > 0) return true;
  for (int i = 0; i < all->count; i++)
    if (atomic_load(&all->scheduler[i].woken.len) > 0) return true;
  return false;
}

/* Sleeps while s->asleep is 1; a signal may end the sleep earlier. */
static void wait_event(struct scheduler *s, int64_t until) {
  struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
  syscall(SYS_futex, &s->asleep, FUTEX_WAIT_BITSET_PRIVATE, 1, until == TIMER_NEVER ? NULL : &at, NULL,
          FUTEX_BITSET_MATCH_ANY);
}

/* The time at which this scheduler must wake for the earliest deadline, or TIMER_NEVER when another sleeping
 * scheduler wakes by then. */
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
  struct schedulers *all = s->all;
  atomic_fetch_add(&all->asleep, 1);
  atomic_store(&s->asleep, 1);
  int64_t until = cover(&all->sleepers); /* only now: a poller sets a deadline, then looks who is asleep */
  if (!work_waits(all)) wait_event(s, until);
  uncover(&all->sleepers, until);
  if (claim(s)) atomic_fetch_sub(&all->asleep, 1);
  if (all->awake && !atomic_load(&all->stopping)) all->awake(all->awake_data);
}

/* --- pollers --- */

/* What the slice has left, a deadline that no sleeping scheduler covers or a runnable that computes, is for a
 * scheduler to see. */
void sched_lend(struct scheduler *s, struct runnable *r) {
  struct schedulers *all = s->all;
  pthread_setspecific(all->self, s);
  atomic_store(&s->asleep, 0);
  s->computes = false;
  run_turn(r, s);
  atomic_store(&s->asleep, 1);
  pthread_setspecific(all->self, NULL);
  if (atomic_load(&all->computing.len) > 0 ||
      atomic_load(&all->sleepers.next) < atomic_load(&all->sleepers.covered))
    sched_kick(all);
}

/* --- life --- */

struct start {
  struct scheduler *s;
  struct error *e;
  int code;
  sem_t done; /* posted when code and *e are final and the thread no longer uses this struct */
};

static void schedule(struct scheduler *s) {
  struct schedulers *all = s->all;
  pthread_setspecific(all->self, s);
  while (!atomic_load(&all->stopping)) {
    wake_due(all, clock_ns());
    if (!sched_step(s)) fall_asleep(s);
  }
}

static void *sched_main(void *data) {
  struct start *start = data;
  struct scheduler *s = start->s;
  bool polls = sched_is_poller(s);
  prctl(PR_SET_NAME, polls ? "poller" : "scheduler");
  prctl(PR_SET_TIMERSLACK, 1UL);
  int code = start->code = preempt_init(s, start->e);
  sem_post(&start->done);
  if (code) return NULL;
  if (polls)
    pollers_main(s);
  else
    schedule(s);
  preempt_finish(s);
  return NULL;
}

static int start_one(struct scheduler *s, struct error *e) {
  struct start start = {.s = s, .e = e};
  sem_init(&start.done, 0, 0);
  int failed = pthread_create(&s->thread, NULL, sched_main, &start);
  if (failed) {
    start.code =
        error_set(e, ERR_SYSTEM, "scheduler thread %d cannot be started: %s", s->index, strerror(failed));
  } else {
    s->has_thread = true;
    while (sem_wait(&start.done)) continue; /* EINTR */
  }
  sem_destroy(&start.done);
  return start.code;
}

int sched_start(struct schedulers *all, struct error *e) {
  int rc = preempt_install();
  if (rc) return error_set(e, rc, "no signal handler for the time slices");
  int threads = all->count + (all->pollers.turn ? POLLERS : 0);
  for (int i = 0; i < threads && rc == 0; i++) rc = start_one(&all->scheduler[i], e);
  return rc;
}

int64_t sched_busy_ns(const struct scheduler *s) {
  clockid_t clock;
  struct timespec t;
  if (!s->has_thread || pthread_getcpuclockid(s->thread, &clock) || clock_gettime(clock, &t)) return -1;
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int join(struct scheduler *s, const struct timespec *until) {
  if (!s->has_thread) return 0;
  if (!sched_is_poller(s)) rouse(s);
  if (pthread_timedjoin_np(s->thread, NULL, until)) return ERR_TIMEOUT;
  s->has_thread = false;
  return 0;
}

static int places(const struct schedulers *all) {
  return all->scheduler ? all->count + POLLERS : 0;
}

int sched_stop(struct schedulers *all, const struct timespec *until) {
  int rc = 0;
  atomic_store(&all->stopping, true);
  pollers_stop(&all->pollers);
  for (int i = 0; i < places(all); i++)
    if (join(&all->scheduler[i], until)) rc = ERR_TIMEOUT;
  return rc;
}

static void init_one(struct scheduler *s, struct schedulers *all, int index) {
  *s = (struct scheduler){.all = all, .index = index};
  atomic_store(&s->asleep, index >= all->count);
  pthread_mutex_init(&s->woken.lock, NULL);
  pthread_mutex_init(&s->place_lock, NULL);
}

int sched_init(struct schedulers *all, int count, void (*run)(struct runnable *, struct scheduler *)) {
  *all = (struct schedulers){.run = run};
  pthread_mutex_init(&all->sleepers.lock, NULL);
  pthread_mutex_init(&all->computing.lock, NULL);
  atomic_store(&all->sleepers.next, TIMER_NEVER);
  atomic_store(&all->sleepers.covered, TIMER_NEVER);
  if (pthread_key_create(&all->self, NULL)) return ERR_SYSTEM;
  all->has_self = true;
  all->scheduler = calloc((size_t)count + POLLERS, sizeof *all->scheduler);
  if (!all->scheduler) return ERR_NOMEM;
  all->count = count;
  for (int i = 0; i < count + POLLERS; i++) init_one(&all->scheduler[i], all, i);
  return 0;
}

void sched_finish(struct schedulers *all) {
  for (int i = 0; i < places(all); i++) {
    pthread_mutex_destroy(&all->scheduler[i].woken.lock);
    pthread_mutex_destroy(&all->scheduler[i].place_lock);
  }
  free(all->scheduler);
  pollers_finish(&all->pollers);
  timers_finish(&all->sleepers.timers);
  for (int i = 0; i < SCHED_CLASSES; i++) timers_finish(&all->computing.order[i]);
  if (all->has_self) pthread_key_delete(all->self);
  pthread_mutex_destroy(&all->sleepers.lock);
  pthread_mutex_destroy(&all->computing.lock);
}
