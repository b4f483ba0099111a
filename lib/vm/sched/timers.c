/* Invariant: heap[i].timer->place == i + 1, heap[i].at is its deadline, and no entry is earlier than its
 * parent, heap[(i - 1) / WAYS].  The entries have the deadlines, and a node has four children, since the time
 * goes to cache misses: the children of a node are side by side, and are compared without a look at their
 * timers. */
#include "vm/sched/timers.h"

#include <stdlib.h>

enum { TIMERS_KEPT = 64 }; /* a heap of so many timers is not made smaller */

void timers_finish(struct timers *ts) {
  free(ts->heap);
  *ts = (struct timers){0};
}

enum { WAYS = 4 };

static void put(struct timers *ts, uint32_t i, struct timer_entry e) {
  ts->heap[i] = e;
  e.timer->place = i + 1;
}

static void sift_up(struct timers *ts, uint32_t i, struct timer_entry e) {
  for (uint32_t parent; i > 0 && e.at < ts->heap[parent = (i - 1) / WAYS].at; i = parent)
    put(ts, i, ts->heap[parent]);
  put(ts, i, e);
}

/* The earliest child of i, whose first child is at `first`. */
static uint32_t earliest(const struct timers *ts, uint32_t first) {
  uint32_t end = ts->len - first < WAYS ? ts->len : first + WAYS, best = first;
  for (uint32_t i = first + 1; i < end; i++)
    if (ts->heap[i].at < ts->heap[best].at) best = i;
  return best;
}

static void sift_down(struct timers *ts, uint32_t i, struct timer_entry e) {
  for (uint32_t first; (first = WAYS * i + 1) < ts->len;) {
    uint32_t child = earliest(ts, first);
    if (e.at <= ts->heap[child].at) break;
    put(ts, i, ts->heap[child]);
    i = child;
  }
  put(ts, i, e);
}

int timers_add(struct timers *ts, struct timer *t) {
  if (ts->len == ts->cap) {
    uint32_t cap = ts->cap ? 2 * ts->cap : 8;
    struct timer_entry *heap = realloc(ts->heap, cap * sizeof(*heap));
    if (!heap) return ERR_NOMEM;
    ts->heap = heap;
    ts->cap = cap;
  }
  sift_up(ts, ts->len++, (struct timer_entry){t->at, t});
  return 0;
}

/* Halves the heap when less than an eighth of it is in use.  Without memory for the copy it stays as it is.
 */
static void shrink(struct timers *ts) {
  if (ts->cap <= TIMERS_KEPT || ts->len >= ts->cap / 8) return;
  struct timer_entry *heap = realloc(ts->heap, ts->cap / 2 * sizeof(*heap));
  if (!heap) return;
  ts->heap = heap;
  ts->cap /= 2;
}

void timers_remove(struct timers *ts, struct timer *t) {
  if (t->place == 0) return;
  uint32_t i = t->place - 1;
  struct timer_entry last = ts->heap[--ts->len];
  t->place = 0;
  shrink(ts);
  if (last.timer == t) return;
  if (i > 0 && last.at < ts->heap[(i - 1) / WAYS].at) {
    sift_up(ts, i, last);
  } else {
    sift_down(ts, i, last);
  }
}

struct timer *timers_due(struct timers *ts, int64_t now) {
  if (ts->len == 0 || ts->heap[0].at > now) return NULL;
  struct timer *t = ts->heap[0].timer;
  timers_remove(ts, t);
  return t;
}
