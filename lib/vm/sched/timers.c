/* Invariant: heap[i]->place == i + 1, and no timer is earlier than its parent, heap[(i - 1) / 2]. */
#include "vm/sched/timers.h"

#include <stdlib.h>

enum { TIMERS_KEPT = 64 }; /* a heap of so many timers is not made smaller */

void timers_finish(struct timers *ts) {
  free(ts->heap);
  *ts = (struct timers){0};
}

static void put(struct timers *ts, uint32_t i, struct timer *t) {
  ts->heap[i] = t;
  t->place = i + 1;
}

static void sift_up(struct timers *ts, uint32_t i, struct timer *t) {
  while (i > 0 && t->at < ts->heap[(i - 1) / 2]->at) {
    put(ts, i, ts->heap[(i - 1) / 2]);
    i = (i - 1) / 2;
  }
  put(ts, i, t);
}

static void sift_down(struct timers *ts, uint32_t i, struct timer *t) {
  for (;;) {
    uint32_t child = 2 * i + 1;
    if (child >= ts->len) break;
    if (child + 1 < ts->len && ts->heap[child + 1]->at < ts->heap[child]->at) child++;
    if (t->at <= ts->heap[child]->at) break;
    put(ts, i, ts->heap[child]);
    i = child;
  }
  put(ts, i, t);
}

int timers_add(struct timers *ts, struct timer *t) {
  if (ts->len == ts->cap) {
    uint32_t cap = ts->cap ? 2 * ts->cap : 8;
    struct timer **heap = realloc(ts->heap, cap * sizeof(*heap));
    if (!heap) return ERR_NOMEM;
    ts->heap = heap;
    ts->cap = cap;
  }
  sift_up(ts, ts->len++, t);
  return 0;
}

/* Halves the heap when less than an eighth of it is in use.  Without memory for the copy it stays as it is.
 */
static void shrink(struct timers *ts) {
  if (ts->cap <= TIMERS_KEPT || ts->len >= ts->cap / 8) return;
  struct timer **heap = realloc(ts->heap, ts->cap / 2 * sizeof(*heap));
  if (!heap) return;
  ts->heap = heap;
  ts->cap /= 2;
}

void timers_remove(struct timers *ts, struct timer *t) {
  if (t->place == 0) return;
  uint32_t i = t->place - 1;
  struct timer *last = ts->heap[--ts->len];
  t->place = 0;
  shrink(ts);
  if (last == t) return;
  if (i > 0 && last->at < ts->heap[(i - 1) / 2]->at) {
    sift_up(ts, i, last);
  } else {
    sift_down(ts, i, last);
  }
}

struct timer *timers_due(struct timers *ts, int64_t now) {
  if (ts->len == 0 || ts->heap[0]->at > now) return NULL;
  struct timer *t = ts->heap[0];
  timers_remove(ts, t);
  return t;
}
