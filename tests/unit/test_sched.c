/* The states of a runnable and the order in which runnables get turns, with a scheduler that the test steps
 * one turn at a time. */
#include "vm/sched/sched.h"

#include "base/clock.h"
#include "tap.h"

#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

enum act { REST, COMPUTE, REQUEUE, JOINED, WOKEN_MEANWHILE };

struct fake {
  struct runnable runnable; /* first */
  enum act act;
  int turns;
  unsigned computing, low; /* processes that compute in it, by priority; neither means one */
  unsigned used;           /* ticks of each turn; 0 means 1 */
  bool rested;
  bool may; /* compute in its last turn, */
  bool low_may;
};

static void run(struct runnable *r, struct scheduler *s) {
  struct fake *f = (struct fake *)r;
  struct sched_demand d = {.deadline = TIMER_NEVER};
  f->turns++;
  r->scheduler = s;
  atomic_store(&r->state, RUNNABLE_RUNNING);
  f->may = sched_may_compute(s, r, SCHED_CLASS_NORMAL);
  f->low_may = sched_may_compute(s, r, SCHED_CLASS_LOW);
  if (f->act == COMPUTE || f->act == REQUEUE || f->act == JOINED) {
    d.woken = f->act != COMPUTE;
    d.normal = f->act == JOINED ? ++f->computing : f->computing, d.low = f->low;
    d.used = f->act == JOINED ? SCHED_TICK_NS
                              : (int64_t)(d.woken || !f->may ? 0
                                          : f->used          ? f->used
                                                             : 1) *
                                    SCHED_TICK_NS;
    sched_requeue(r, d);
    return;
  }
  if (f->act == WOKEN_MEANWHILE) sched_wake(s->all, r);
  f->rested = sched_rest(r);
  d.woken = true;
  if (!f->rested) sched_requeue(r, d);
}

static struct schedulers all;

static void begin(void) {
  if (sched_init(&all, 1, run)) abort();
}

static void test_states(void) {
  struct fake f = {.act = REST};
  begin();
  ok(!sched_step(&all.scheduler[0]), "with nothing woken there is nothing to run");
  sched_wake(&all, &f.runnable);
  ok(f.runnable.state == RUNNABLE_QUEUED, "a wake-up queues an idle one");
  sched_wake(&all, &f.runnable);
  ok(sched_step(&all.scheduler[0]) && f.turns == 1, "it is run");
  ok(f.rested && f.runnable.state == RUNNABLE_IDLE, "and is idle when it rests");
  ok(!sched_step(&all.scheduler[0]), "a second wake-up before that has queued it only once");
  f.act = WOKEN_MEANWHILE;
  sched_wake(&all, &f.runnable);
  sched_step(&all.scheduler[0]);
  ok(f.turns == 2 && !f.rested, "one that is woken while it runs does not get to rest");
  f.act = REST;
  ok(sched_step(&all.scheduler[0]) && f.turns == 3, "but has another turn");
  sched_finish(&all);
}

static void test_woken_first(void) {
  struct fake computing[4] = {{.act = COMPUTE}, {.act = COMPUTE}, {.act = COMPUTE}, {.act = COMPUTE}};
  struct fake woken = {.act = REST};
  begin();
  for (int i = 0; i < 4; i++) sched_wake(&all, &computing[i].runnable);
  for (int i = 0; i < 8; i++) sched_step(&all.scheduler[0]);
  ok(computing[0].turns == 2 && computing[3].turns == 2, "those that compute take turns");
  sched_wake(&all, &woken.runnable);
  sched_step(&all.scheduler[0]);
  ok(woken.turns == 1, "one that was woken comes before all of them");
  sched_wake(&all, &computing[2].runnable);
  sched_step(&all.scheduler[0]);
  ok(computing[2].turns == 3, "and so does one of them once it is woken");
  sched_finish(&all);
}

static void step(int n) {
  while (n-- > 0) sched_step(&all.scheduler[0]);
}

/* Shares go by process, not by runnable. */
static void test_shares(void) {
  struct fake one = {.act = COMPUTE}, five = {.act = COMPUTE, .computing = 5};
  struct fake woken = {.act = REST};
  begin();
  sched_wake(&all, &one.runnable);
  sched_wake(&all, &five.runnable);
  step(60 + 2);
  ok(one.turns >= 10 && one.turns <= 12 && five.turns >= 50 && five.turns <= 52,
     "a runnable in which five compute has five turns for each of one in which one computes");
  ok(sched_load(&five.runnable) == 5, "and any thread may see how many compute in it");
  sched_wake(&all, &woken.runnable);
  step(1);
  ok(woken.turns == 1, "one that was woken comes between these turns");
  five.computing = 1;
  int before = one.turns;
  step(20);
  ok(one.turns - before >= 9, "the share is smaller once fewer compute");
  five.act = REST;
  step(3);
  ok(sched_load(&five.runnable) == 0, "none computes in one that rests");
  sched_finish(&all);
}

/* A thousand processes: the first in a runnable of its own, all others in four. */
static void test_thousand(void) {
  struct fake crowd[5];
  begin();
  for (int i = 0; i < 5; i++) {
    crowd[i] = (struct fake){.act = COMPUTE, .computing = i == 0 ? 1 : 150 + 33 * (unsigned)i};
    sched_wake(&all, &crowd[i].runnable);
  }
  step(5 + 10 * 931);
  bool fair = true;
  for (int i = 0; i < 5; i++) {
    double share = crowd[i].turns / 10.0 / crowd[i].computing;
    fair = fair && share > 0.85 && share < 1.25;
  }
  ok(fair, "of a thousand processes in uneven runnables each has its share of the turns");
  sched_finish(&all);
}

/* A crowd that is woken at once joins those that compute one by one, each with a slice behind it. */
static void test_joining(void) {
  struct fake crowd = {.act = JOINED}, other = {.act = COMPUTE, .computing = 200};
  begin();
  sched_wake(&all, &other.runnable);
  step(1);
  sched_wake(&all, &crowd.runnable);
  step(200);
  ok(crowd.turns == 200 && crowd.computing == 200, "those that are woken come before all that compute");
  crowd.act = COMPUTE;
  step(801);
  ok(crowd.turns > 470 && crowd.turns < 530, "and have their share of the turns then, no less: %d of 1000",
     crowd.turns);
  sched_finish(&all);
}

/* One that is woken again and again gets no more than its share for what computes in it, and no less. */
static void test_often_woken(void) {
  struct fake loops[9], busy = {.act = COMPUTE};
  begin();
  sched_wake(&all, &busy.runnable);
  for (int i = 0; i < 9; i++) {
    loops[i] = (struct fake){.act = COMPUTE};
    sched_wake(&all, &loops[i].runnable);
  }
  int computed = 0;
  for (int i = 0; i < 1000; i++) {
    int before = busy.turns;
    step(1);
    if (busy.turns > before && busy.may) computed++;
    if (i % 2 == 0) sched_wake(&all, &busy.runnable);
  }
  ok(busy.turns >= 490 && loops[0].turns >= 40, "one that is woken again and again has a turn each time");
  ok(computed >= loops[0].turns - 2 && computed <= loops[0].turns + 2,
     "but may compute in as many of them as each of the others: %d, %d", computed, loops[0].turns);
  sched_finish(&all);
}

/* After a call of C that has held the core for long, or after a rest, a share is a share again. */
static void test_bounds(void) {
  struct fake one = {.act = COMPUTE}, other = {.act = COMPUTE, .used = 100000};
  begin();
  sched_wake(&all, &one.runnable);
  sched_wake(&all, &other.runnable);
  step(2);
  other.used = 1;
  step(400);
  ok(other.turns > 100, "one that had the core for long is not shut out for as long");
  other.act = REST;
  sched_wake(&all, &other.runnable);
  step(1000);
  other.act = COMPUTE;
  sched_wake(&all, &other.runnable);
  int before = one.turns;
  step(20);
  ok(one.turns - before >= 9, "and one that has rested gets nothing for that");
  sched_finish(&all);
}

static void test_low(void) {
  struct fake normal[2] = {{.act = COMPUTE}, {.act = COMPUTE}}, low = {.act = COMPUTE, .low = 5};
  begin();
  sched_wake(&all, &low.runnable);
  step(1);
  ok(low.low_may, "one of low priority that was woken computes while nothing else wants the core");
  step(2);
  ok(low.turns == 3 && sched_load(&low.runnable) == 1, "and has all turns; its load counts little");
  for (int i = 0; i < 2; i++) sched_wake(&all, &normal[i].runnable);
  step(2);
  int before = low.turns;
  step(80);
  ok(low.turns - before == 10, "beside normal ones it has one turn in eight, however many compute in it: %d",
     low.turns - before);
  sched_wake(&all, &low.runnable);
  step(1);
  ok(!low.low_may, "it may not compute, but look at its signals, when it is woken before that turn");
  normal[0].act = normal[1].act = REST;
  step(20);
  before = low.turns;
  step(5);
  ok(low.turns - before == 5, "it has all turns again once the others rest");
  sched_finish(&all);
}

static void test_patience(void) {
  struct fake busy = {.act = REQUEUE}, computes = {.act = COMPUTE};
  begin();
  struct scheduler *s = &all.scheduler[0];
  sched_wake(&all, &computes.runnable);
  sched_step(s);
  sched_wake(&all, &busy.runnable);
  for (int i = 0; i < 20; i++) sched_step(s);
  ok(computes.turns == 1 && busy.turns == 20, "within its patience one that computes waits for the woken");
  atomic_fetch_add(&s->ticks, SCHED_PATIENCE + 1);
  sched_step(s);
  ok(computes.turns == 2, "after it, one that computes has a turn");
  sched_step(s);
  ok(busy.turns == 21, "and then the woken again");
  sched_finish(&all);
}

/* The patience of one that computes alone gives it no turns at the cost of a crowd that is woken, and has
 * less. */
static void test_alone(void) {
  struct fake alone = {.act = COMPUTE}, crowd = {.act = JOINED};
  begin();
  struct scheduler *s = &all.scheduler[0];
  sched_wake(&all, &alone.runnable);
  step(10);
  sched_wake(&all, &crowd.runnable);
  for (int i = 0; i < 100; i++) {
    step(1);
    atomic_fetch_add(&s->ticks, 1);
  }
  ok(crowd.turns >= 98, "a crowd that is woken has its turns before one that has computed longer: %d of 100",
     crowd.turns);
  crowd.act = COMPUTE;
  int before = alone.turns;
  step(2000);
  ok(alone.turns > before, "which has its share later");
  sched_finish(&all);
}

/* Processes that wake each other all the time, beside one of theirs that computes, hold up nobody. */
static void test_ring(void) {
  struct fake alone = {.act = COMPUTE}, ring = {.act = JOINED};
  begin();
  struct scheduler *s = &all.scheduler[0];
  sched_wake(&all, &alone.runnable);
  step(10);
  sched_wake(&all, &ring.runnable);
  step(1);
  ring.act = REQUEUE;
  int before = alone.turns;
  for (int i = 0; i < 1000; i++) {
    step(1);
    atomic_fetch_add(&s->ticks, 1);
  }
  ok(alone.turns - before >= 1000 / (SCHED_PATIENCE + 2),
     "one that computes has its turns beside those who are woken all the time: %d of 1000",
     alone.turns - before);
  sched_finish(&all);
}

/* One that computes alone goes a long way in virtual time with each turn: those that join begin with the
 * others.
 */
static void test_begins_with_others(void) {
  struct fake first = {.act = COMPUTE, .computing = 100}, late = {.act = JOINED};
  begin();
  sched_wake(&all, &first.runnable);
  step(1);
  atomic_store(&all.computing.now[SCHED_CLASS_NORMAL], 8 * SCHED_TICK_NS); /* by the turn of one alone */
  sched_wake(&all, &late.runnable);
  step(100);
  late.act = COMPUTE;
  step(2000);
  ok(late.turns > 950 && late.turns < 1150,
     "those that join late begin with those that wait: %d of 2100 turns", late.turns);
  sched_finish(&all);
}

/* Schedulers without threads, which pretend to sleep. */
static void test_wakes_where_it_ran(void) {
  struct fake f[3] = {{.act = REST}, {.act = REST}, {.act = REST}};
  if (sched_init(&all, 3, run)) abort();
  for (int i = 0; i < 3; i++) atomic_store(&all.scheduler[i].asleep, 1);
  atomic_store(&all.asleep, 3);
  for (int i = 0; i < 3; i++) f[i].runnable.scheduler = &all.scheduler[i ? 1 : 2];
  sched_wake(&all, &f[0].runnable);
  sched_wake(&all, &f[1].runnable);
  ok(all.scheduler[2].woken.first == &f[0].runnable && all.scheduler[1].woken.first == &f[1].runnable,
     "one that another thread wakes goes to the sleeping scheduler that ran it last");
  ok(!all.scheduler[2].asleep && !all.scheduler[1].asleep && all.scheduler[0].asleep && all.asleep == 1,
     "and that alone is roused");
  sched_wake(&all, &f[2].runnable);
  ok(all.scheduler[0].woken.first == &f[2].runnable && !all.asleep,
     "to another that sleeps when that does not");
  sched_finish(&all);
}

#ifndef __SANITIZE_THREAD__ /* ThreadSanitizer delays signals, so there are no ticks in a long turn */
/* Two scheduler threads that sleep.  One is woken for the hog, which gives the sleeper a deadline, and keeps
 * its scheduler, without Lua, until the sleeper has run.  The other scheduler has fallen asleep before there
 * was a deadline. */
static struct runnable sleeper, hog;
static atomic_bool slept;
static sem_t ended;

static void run_hog(struct scheduler *s) {
  int64_t begin = clock_ns();
  sleeper.scheduler = s;
  sched_sleep_until(&sleeper, begin + 5000000);
  while (!atomic_load(&slept) && clock_ns() < begin + INT64_C(60000000000)) continue;
  sem_post(&ended);
}

static void run_thread(struct runnable *r, struct scheduler *s) {
  if (r == &hog) {
    run_hog(s);
  } else {
    atomic_store(&slept, true);
  }
  while (!sched_rest(r)) continue;
}

/* The other scheduler may just be falling asleep, and so see the deadline: that happens now and then. */
enum { TRIES = 10 };

static bool is_kept(const struct timespec *until) {
  for (bool all_sleep = false; !all_sleep && time(NULL) < until->tv_sec; sched_yield())
    all_sleep = atomic_load(&all.asleep) == 2;
  atomic_store(&slept, false);
  sched_wake(&all, &hog);
  return sem_timedwait(&ended, until) == 0 && atomic_load(&slept);
}

static void test_deadline(void) {
  struct timespec until;
  struct error e;
  int kept = 0;
  sem_init(&ended, 0, 0);
  if (sched_init(&all, 2, run_thread) || sched_start(&all, &e)) abort();
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 90;
  while (kept < TRIES && is_kept(&until)) kept++;
  ok(kept == TRIES,
     "a deadline is kept by an idle scheduler while the one that knows of it is in a long call of C");
  if (sched_stop(&all, &until)) abort();
  sched_finish(&all);
  sem_destroy(&ended);
}
#else
static void test_deadline(void) {}
#endif

int main(void) {
  test_states();
  test_woken_first();
  test_shares();
  test_thousand();
  test_joining();
  test_often_woken();
  test_bounds();
  test_low();
  test_patience();
  test_alone();
  test_ring();
  test_begins_with_others();
  test_wakes_where_it_ran();
  test_deadline();
  return tap_end();
}
