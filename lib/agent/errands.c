/* Invariant: the handle `turn` runs exactly while errands are in the queue.  An errand is in the queue while
 * its step runs, so a step that adds errands puts them behind it. */
#include "agent/errands.h"

#include "base/holds.h"

#include <limits.h>

bool errands_idle(const struct errands *all) {
  return STAILQ_EMPTY(&all->queue);
}

/* Does slices of the oldest errands until *left pieces are used up or nothing is left. */
static void do_some(struct errands *all, int *left) {
  for (struct errand *e; *left > 0 && (e = STAILQ_FIRST(&all->queue));) {
    holds_note(all->holds, e->name, NULL);
    bool done = e->step(e, left);
    STAILQ_REMOVE_HEAD(&all->queue, in_queue);
    if (done)
      e->done(e);
    else
      STAILQ_INSERT_TAIL(&all->queue, e, in_queue);
  }
}

static void on_turn(uv_idle_t *turn) {
  struct errands *all = turn->data;
  int left = all->slice;
  do_some(all, &left);
  if (errands_idle(all)) uv_idle_stop(turn);
}

static void do_all(struct errands *all) {
  while (!errands_idle(all)) {
    int left = INT_MAX;
    do_some(all, &left);
  }
}

void errands_init(struct errands *all, uv_loop_t *loop, struct holds_loop *holds) {
  *all = (struct errands){.holds = holds, .slice = ERRANDS_TURN};
  STAILQ_INIT(&all->queue);
  uv_idle_init(loop, &all->turn);
  all->turn.data = all;
}

void errands_add(struct errands *all, struct errand *e) {
  bool first = errands_idle(all);
  STAILQ_INSERT_TAIL(&all->queue, e, in_queue);
  if (!all->finished)
    uv_idle_start(&all->turn, on_turn);
  else if (first)
    do_all(all);
}

void errands_begin(struct errands *all, struct errand *e) {
  bool first = errands_idle(all);
  errands_add(all, e);
  if (first && !all->finished) on_turn(&all->turn);
}

void errands_finish(struct errands *all) {
  if (all->finished) return;
  all->finished = true;
  do_all(all);
  uv_close((uv_handle_t *)&all->turn, NULL);
}
