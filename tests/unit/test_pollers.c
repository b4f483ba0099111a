/* The two threads that run the host's loop, and what they run between two turns of it.  A turn of the loop of
 * this test waits for the test, and does what it says. */
#include "vm/sched/pollers.h"

#include "base/clock.h"
#include "tap.h"
#include "vm/sched/sched.h"

#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

enum act { REST, HOLD, SLEEP, COMPUTE };

struct fake {
  struct runnable runnable; /* first */
  enum act act;
  sem_t ran;     /* posted at the end of each slice */
  atomic_int by; /* the index of the scheduler that ran it last */
  atomic_int ran_times;
};

static struct schedulers all;
static struct fake a, b;
static sem_t released; /* ends a slice that holds its thread */
static struct timespec until;

static void rest(struct fake *f) {
  while (!sched_rest(&f->runnable)) continue;
  sem_post(&f->ran);
}

static void run(struct runnable *r, struct scheduler *s) {
  struct fake *f = (struct fake *)r;
  enum act act = f->act;
  f->act = REST;
  signals_free(inbox_take(&r->inbox));
  atomic_store(&f->by, s->index);
  atomic_fetch_add(&f->ran_times, 1);
  if (act == HOLD)
    while (sem_wait(&released)) continue; /* the ticks interrupt it */
  if (act == SLEEP) sched_sleep_until(r, clock_ns() + 1000000);
  if (act == COMPUTE) {
    sem_post(&f->ran);
    sched_requeue(r, (struct sched_demand){.normal = 1, .used = 1, .deadline = TIMER_NEVER});
    return;
  }
  rest(f);
}

/* --- the loop ------------------------------------------------------------------------------------------- */

static struct {
  sem_t event, done;
  struct fake *wakes[2];
  bool ends, may_wait; /* may_wait: at the end of the last turn */
  pthread_t thread;    /* ran the last turn */
} loop;

static bool turn(void *data) {
  (void)data;
  while (sem_wait(&loop.event)) continue;
  loop.thread = pthread_self();
  for (int i = 0; i < 2; i++)
    if (loop.wakes[i]) sched_wake(&all, &loop.wakes[i]->runnable);
  loop.may_wait = pollers_may_wait(&all.pollers);
  bool goes_on = !loop.ends;
  sem_post(&loop.done);
  return goes_on;
}

static bool wait_for(sem_t *s) {
  int failed;
  while ((failed = sem_timedwait(s, &until)) && time(NULL) < until.tv_sec) continue;
  return !failed;
}

static bool do_turn(struct fake *first, struct fake *second) {
  loop.wakes[0] = first;
  loop.wakes[1] = second;
  sem_post(&loop.event);
  return wait_for(&loop.done);
}

/* Waits until the schedulers sleep and, where `both`, a poller stands by. */
static void settle(bool both) {
  while (time(NULL) < until.tv_sec &&
         (atomic_load(&all.asleep) < all.count || (both && !atomic_load(&all.pollers.standby))))
    sched_yield();
}

static bool by_poller(const struct fake *f) {
  return atomic_load(&f->by) >= all.count;
}

static void *main_of_loop(void *data) {
  (void)data;
  pollers_run(&all);
  return NULL;
}

static void test_one(void) {
  do { /* at first, both poller threads may still stand by */
    settle(true);
    if (!do_turn(&a, NULL) || !wait_for(&a.ran)) break;
  } while (!by_poller(&a) && time(NULL) < until.tv_sec);
  ok(by_poller(&a) && !loop.may_wait,
     "a poller runs the one that its turn has woken, and must not wait first");
  settle(true);
  ok(do_turn(&a, &b) && wait_for(&a.ran) && wait_for(&b.ran) && !by_poller(&a) && !by_poller(&b) &&
         loop.may_wait,
     "of two, both are run by schedulers");
  settle(true);
  for (int i = 0; i <= POLLERS_LEND; i++)
    inbox_push(&a.runnable.inbox, signal_new(SIGNAL_MESSAGE, NPID_NONE, NPID_NONE, NPID_NONE, NULL));
  ok(do_turn(&a, NULL) && wait_for(&a.ran) && !by_poller(&a), "so is one to whom much has been sent");
}

static void test_left(void) {
  settle(true);
  a.act = SLEEP;
  ok(do_turn(&a, NULL) && wait_for(&a.ran) && wait_for(&a.ran) && !by_poller(&a),
     "a deadline that it sets is kept by a scheduler");
  settle(true);
  a.act = COMPUTE;
  ok(do_turn(&a, NULL) && wait_for(&a.ran) && wait_for(&a.ran) && !by_poller(&a),
     "and its computing goes on there");
}

static void test_hold(void) {
  settle(true);
  a.act = HOLD;
  do_turn(&a, NULL);
  pthread_t first = loop.thread;
  ok(do_turn(NULL, NULL) && !pthread_equal(first, loop.thread),
     "while it is held, the other poller goes on with the loop");
  settle(false);
  ok(by_poller(&a) && do_turn(&b, NULL) && wait_for(&b.ran) && !by_poller(&b),
     "and leaves all to the schedulers, as nobody stands by");
  sem_post(&released);
  settle(true);
  ok(wait_for(&a.ran) && do_turn(&b, NULL) && wait_for(&b.ran) && by_poller(&b),
     "until the first one stands by");
}

/* All schedulers have work: so many green threads run as there are schedulers, and no more. */
static void test_busy(void) {
  struct fake hog = {.act = HOLD};
  sem_init(&hog.ran, 0, 0);
  settle(true);
  sched_wake(&all, &hog.runnable);
  while (!atomic_load(&hog.ran_times) && time(NULL) < until.tv_sec) sched_yield();
  do_turn(&a, NULL);
  do_turn(NULL, NULL);
  ok(sem_trywait(&a.ran) != 0, "a poller runs nothing while no scheduler sleeps");
  sem_post(&released);
  ok(wait_for(&hog.ran) && wait_for(&a.ran) && !by_poller(&a), "but leaves it to the next that is free");
  sem_destroy(&hog.ran);
}

int main(void) {
  struct error e;
  pthread_t owner;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 90;
  sem_init(&released, 0, 0);
  sem_init(&loop.event, 0, 0), sem_init(&loop.done, 0, 0);
  sem_init(&a.ran, 0, 0), sem_init(&b.ran, 0, 0);
  if (sched_init(&all, 1, run) || pollers_init(&all.pollers, turn, NULL) || sched_start(&all, &e)) abort();
  if (pthread_create(&owner, NULL, main_of_loop, NULL)) abort();
  test_one();
  test_left();
  test_hold();
  test_busy();
  loop.ends = true;
  ok(do_turn(NULL, NULL) && pthread_join(owner, NULL) == 0, "pollers_run returns as the loop has ended");
  ok(sched_stop(&all, &until) == 0, "and the threads end");
  sched_finish(&all);
  sem_destroy(&released);
  sem_destroy(&loop.event), sem_destroy(&loop.done);
  sem_destroy(&a.ran), sem_destroy(&b.ran);
  return tap_end();
}
