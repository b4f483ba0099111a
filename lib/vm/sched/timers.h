/* timers: a heap of deadlines.  A timer is embedded in the struct that it wakes and knows its place in
 * the heap, so timers_remove takes O(log n), without a search.  One thread at a time: no function takes a
 * lock. */
#ifndef VM_SCHED_TIMERS_H
#define VM_SCHED_TIMERS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct timer {
  int64_t at;     /* ns of CLOCK_MONOTONIC; does not change while the timer is in a heap */
  uint32_t place; /* 1-based; 0: not in a heap */
  bool alarm;     /* it is a member of a struct alarm, not of a process or a runnable */
};

struct timer_entry {
  int64_t at; /* the timer's */
  struct timer *timer;
};

struct timers {
  struct timer_entry *heap;
  uint32_t len, cap;
};

#define TIMER_NEVER INT64_MAX

void timers_finish(struct timers *ts);

/* Adds t, which is in no heap.  0 or ERR_NOMEM. */
int timers_add(struct timers *ts, struct timer *t) MUST_CHECK;
void timers_remove(struct timers *ts, struct timer *t);

/* The earliest deadline, or TIMER_NEVER. */
static inline int64_t timers_next(const struct timers *ts) {
  return ts->len ? ts->heap[0].at : TIMER_NEVER;
}

/* Removes and returns the earliest timer whose deadline is not after now, or NULL. */
struct timer *timers_due(struct timers *ts, int64_t now);

static inline bool timer_armed(const struct timer *t) {
  return t->place != 0;
}

#endif
