/* errands: work of a loop's thread that may be long, done in slices of at most ERRANDS_TURN pieces, so that
 * the loop serves everybody else between two slices.
 *
 * A queue of errands does one slice in each turn of its loop, and keeps the loop alive until it is empty. The
 * errands take turns: one that is not done after its slice goes behind the others. A piece is work of about
 * half a microsecond; a module counts what takes longer as several pieces.  The thread of the loop only. */
#ifndef AGENT_ERRANDS_H
#define AGENT_ERRANDS_H

#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

struct holds_loop;

enum { ERRANDS_TURN = 1000 };

/* The caller's storage, as a member of a struct of its own; to be zeroed but for its two functions and its
 * name. */
struct errand {
  STAILQ_ENTRY(errand) in_queue;
  const char *name; /* for the watchdog (holds_note), of static storage */
  /* Does work until *left pieces are used up (false), or all is done (true); takes what it has done off
   * *left. May add errands to the queue. */
  bool (*step)(struct errand *e, int *left);
  void (*done)(struct errand *e); /* the errand is no longer in the queue, and may be freed or added again */
};

STAILQ_HEAD(errand_queue, errand);

struct errands {
  struct errand_queue queue;
  uv_idle_t turn;
  struct holds_loop *holds;
  int slice; /* pieces of a turn: ERRANDS_TURN; a test may set fewer */
  bool finished;
};

/* holds: of the loop, or NULL. */
void errands_init(struct errands *all, uv_loop_t *loop, struct holds_loop *holds);

/* Adds an errand that is not in the queue. */
void errands_add(struct errands *all, struct errand *e);

/* The same, and where the queue is empty, the first slice is done before errands_begin returns, and with it
 * the whole errand if that is short: `done` may have run then. */
void errands_begin(struct errands *all, struct errand *e);

/* Is there nothing left to do? */
bool errands_idle(const struct errands *all);

/* Does all that is left, and closes the handle of the queue. What is added later is done at once. */
void errands_finish(struct errands *all);

#endif
