/* The heap of deadlines: order and removal from any place, compared with a linear search. */
#include "vm/sched/timers.h"

#include "tap.h"

#include <stdlib.h>

enum { TIMERS = 500, ROUNDS = 20000 };

static int64_t earliest(const struct timer *all) {
  int64_t at = TIMER_NEVER;
  for (int i = 0; i < TIMERS; i++)
    if (timer_armed(&all[i]) && all[i].at < at) at = all[i].at;
  return at;
}

static void test_seeded(unsigned seed) {
  static struct timer all[TIMERS];
  memset(all, 0, sizeof all);
  struct timers ts = {0};
  bool right = true;
  for (int i = 0; i < ROUNDS; i++) {
    struct timer *t = &all[rand_r(&seed) % TIMERS];
    if (timer_armed(t)) {
      timers_remove(&ts, t);
    } else {
      t->at = rand_r(&seed) % 1000;
      if (timers_add(&ts, t)) abort();
    }
    if (i % 16 == 0) right &= timers_next(&ts) == earliest(all);
  }
  ok(right, "the next deadline is the earliest of all, whatever was added and removed");
  int64_t last = -1;
  uint32_t left = ts.len, taken = 0;
  for (struct timer *t; (t = timers_due(&ts, TIMER_NEVER - 1)); taken++) {
    right &= t->at >= last && !timer_armed(t);
    last = t->at;
  }
  ok(right && taken == left, "and all of them come out in order, once");
  timers_finish(&ts);
}

int main(void) {
  struct timers ts = {0};
  struct timer a = {.at = 10}, b = {.at = 10}, c = {.at = 5};
  ok(timers_next(&ts) == TIMER_NEVER && !timers_due(&ts, 100), "an empty heap has nothing due");
  ok(!timers_add(&ts, &a) && !timers_add(&ts, &b) && !timers_add(&ts, &c), "timers are added");
  ok(timers_next(&ts) == 5 && !timers_due(&ts, 4), "none is due before its time");
  ok(timers_due(&ts, 5) == &c && !timers_due(&ts, 5), "one is due at its time, once");
  timers_remove(&ts, &c);
  timers_remove(&ts, &a);
  ok(ts.len == 1 && timers_due(&ts, 10) == &b, "removing one that is not armed changes nothing");
  timers_finish(&ts);
  for (unsigned seed = 1; seed <= 5; seed++) test_seeded(seed);
  return tap_end();
}
