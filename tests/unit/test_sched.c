/* The states of a runnable and the order in which runnables get turns, with a scheduler that the test steps
 * one turn at a time. */
#include "vm/sched/sched.h"

#include "tap.h"

#include <stdlib.h>

enum act { REST, COMPUTE, REQUEUE, WOKEN_MEANWHILE };

struct fake {
  struct runnable runnable; /* first */
  enum act act;
  int turns;
  unsigned computing; /* processes that compute in it; 0 means 1 */
  bool rested;
};

static void run(struct runnable *r, struct scheduler *s) {
  struct fake *f = (struct fake *)r;
  f->turns++;
  r->scheduler = s;
  atomic_store(&r->state, RUNNABLE_RUNNING);
  if (f->act == COMPUTE || f->act == REQUEUE) {
    sched_requeue(r, f->act == REQUEUE ? 0 : f->computing ? f->computing : 1, TIMER_NEVER);
    return;
  }
  if (f->act == WOKEN_MEANWHILE) sched_wake(s->all, r);
  f->rested = sched_rest(r);
  if (!f->rested) sched_requeue(r, 0, TIMER_NEVER);
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

/* Shares go by process, not by runnable. */
static void test_shares(void) {
  struct fake one = {.act = COMPUTE}, five = {.act = COMPUTE, .computing = 5};
  struct fake woken = {.act = REST};
  begin();
  sched_wake(&all, &one.runnable);
  sched_wake(&all, &five.runnable);
  for (int i = 0; i < 60 + 2; i++) sched_step(&all.scheduler[0]);
  ok(one.turns >= 10 && one.turns <= 12 && five.turns >= 50 && five.turns <= 52,
     "a runnable in which five compute has five turns for each of one in which one computes");
  ok(sched_load(&five.runnable) == 5, "and any thread may see how many compute in it");
  sched_wake(&all, &woken.runnable);
  sched_step(&all.scheduler[0]);
  ok(woken.turns == 1, "one that was woken comes between these turns");
  five.computing = 1;
  int before = one.turns;
  for (int i = 0; i < 20; i++) sched_step(&all.scheduler[0]);
  ok(one.turns - before >= 9, "turns that are left are void once fewer compute");
  five.act = REST;
  for (int i = 0; i < 3; i++) sched_step(&all.scheduler[0]);
  ok(sched_load(&five.runnable) == 0, "none computes in one that rests");
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

int main(void) {
  test_states();
  test_woken_first();
  test_shares();
  test_patience();
  return tap_end();
}
