/* Orderings: a poller gives up the loop, and then looks whether the timer is armed.  The one that stands by
 * reads the timer, marks it as not armed, and then looks whether anybody polls.  So either the first arms the
 * timer for its slice, or the other does.  A poller gives up the loop only for a slice, after which it takes
 * it again or stands by; so one of the two always goes on. */
#include "vm/sched/pollers.h"

#include "vm/sched/sched.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

int pollers_init(struct pollers *p, bool (*turn)(void *data), void *data) {
  p->turn = turn;
  p->data = data;
  atomic_store(&p->polls, true);
  if (pthread_key_create(&p->self, NULL)) return ERR_SYSTEM;
  p->has_self = true;
  sem_init(&p->ended, 0, 0);
  p->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  return p->timer < 0 ? ERR_SYSTEM : 0;
}

void pollers_finish(struct pollers *p) {
  if (!p->has_self) return;
  pthread_key_delete(p->self);
  sem_destroy(&p->ended);
  if (p->timer >= 0) close(p->timer);
}

/* --- the loop and its keeper ---------------------------------------------------------------------------- */

static bool take_loop(struct pollers *p) {
  return !atomic_exchange(&p->polls, true);
}

static void arm(struct pollers *p, long ns) {
  struct itimerspec once = {.it_value = {.tv_nsec = ns}};
  if (!atomic_exchange(&p->armed, true)) timerfd_settime(p->timer, 0, &once, NULL);
}

/* Has whoever stands by look at once. */
static void call_standby(struct pollers *p) {
  atomic_store(&p->armed, false);
  arm(p, 1);
}

/* Waits until the loop is to be taken over.  A slice that two looks have found is a long one. */
static void stand_by(struct pollers *p) {
  unsigned seen = atomic_load(&p->slices), slices;
  uint64_t expired;
  atomic_fetch_add(&p->standby, 1);
  while (!atomic_load(&p->over)) {
    if (read(p->timer, &expired, sizeof expired) < 0) continue; /* EINTR */
    atomic_store(&p->armed, false);
    if (atomic_load(&p->polls)) continue;
    arm(p, POLLERS_NS);
    if ((slices = atomic_load(&p->slices)) == seen) break;
    seen = slices;
  }
  atomic_fetch_sub(&p->standby, 1);
  if (atomic_load(&p->over)) call_standby(p); /* one expiry is read by one poller */
}

/* --- lending -------------------------------------------------------------------------------------------- */

/* Two runnables are run by schedulers, beside each other and the loop. */
bool pollers_take(struct schedulers *all, struct runnable *r) {
  struct pollers *p = &all->pollers;
  struct scheduler *s = p->has_self ? pthread_getspecific(p->self) : NULL;
  if (!s) return false;
  struct runnable *first = s->taken;
  s->taken = NULL;
  if (first) sched_place(all, first);
  if (s->woke++ || !atomic_load(&all->asleep) || !atomic_load(&p->standby)) return false;
  s->taken = r;
  return true;
}

bool pollers_may_wait(const struct pollers *p) {
  const struct scheduler *s = p->has_self ? pthread_getspecific(p->self) : NULL;
  return !s || !s->taken;
}

static bool is_short(const struct inbox *in) {
  int n = 0;
  for (const struct signal *s = atomic_load(&in->head); s && n <= POLLERS_LEND; s = s->next) n++;
  return n <= POLLERS_LEND;
}

/* Runs turns of the loop until one has woken a runnable that the poller is to run.  NULL: the loop has
 * ended. */
static struct runnable *poll(struct scheduler *s) {
  struct pollers *p = &s->all->pollers;
  for (;;) {
    s->woke = 0;
    bool goes_on = p->turn(p->data);
    struct runnable *r = s->taken;
    s->taken = NULL;
    if (r && goes_on && is_short(&r->inbox)) return r;
    if (r) sched_place(s->all, r);
    if (!goes_on) return NULL;
  }
}

void pollers_main(struct scheduler *s) {
  struct pollers *p = &s->all->pollers;
  pthread_setspecific(p->self, s);
  while (!atomic_load(&p->over)) {
    if (!take_loop(p)) {
      stand_by(p);
      if (s->all->awake && !atomic_load(&p->over)) s->all->awake(s->all->awake_data);
      continue;
    }
    struct runnable *r = poll(s);
    if (!r) {
      pollers_stop(p);
      sem_post(&p->ended);
      return;
    }
    atomic_fetch_add(&p->slices, 1);
    atomic_store(&p->polls, false);
    arm(p, POLLERS_NS);
    sched_lend(s, r);
  }
}

void pollers_run(struct schedulers *all) {
  struct pollers *p = &all->pollers;
  atomic_store(&p->polls, false);
  call_standby(p);
  while (sem_wait(&p->ended)) continue; /* EINTR */
}

void pollers_stop(struct pollers *p) {
  atomic_store(&p->over, true);
  if (p->turn) call_standby(p);
}
