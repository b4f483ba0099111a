/* holds: finds out when a thread that must go on was held for too long, and by whom.
 *
 * Two threads use it.  The *loop* is a thread that runs an event loop: it tells when the callbacks of a turn
 * have begun and ended (holds_span), and what it is doing (holds_note).  The *watcher* is a thread that looks
 * every HOLDS_LOOK_MS at counters of other threads (holds_look, holds_progress); it *rests* while these are
 * idle, and looks every HOLDS_REST_MS only (holds_saw, holds_pause_ms).  When the whole operating-
 * system process was stopped or not run, the watcher was not run, either: the time by which it looked too
 * late is a *gap*, and no gap counts as a hold.
 *
 * No function reads a clock but holds_note and holds_turn: times are nanoseconds of clock_ns, given by the
 * caller. */
#ifndef BASE_HOLDS_H
#define BASE_HOLDS_H

#include "base/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define HOLDS_NS      INT64_C(100000000)  /* what is longer counts as a hold */
#define HOLDS_LONG    INT64_C(1000000000) /* a hold that is told before it ends */
#define HOLDS_ROUNDED INT64_C(1000000)    /* the begin of a span may be rounded down by so much */

enum { HOLDS_LOOK_MS = 25, HOLDS_REST_MS = 250, HOLDS_IDLE_LOOKS = 4, HOLDS_LATE_MS = 50, HOLDS_GAPS = 16 };

/* --- by the watcher ------------------------------------------------------------------------------------- */

struct holds_gap {
  int64_t from, to;
};

struct holds_watcher {
  int64_t looked; /* when it looked last; 0: never */
  int64_t step;   /* between the last two looks, without gap and rest */
  int idle;       /* looks in a row that have seen all threads idle, up to HOLDS_IDLE_LOOKS: then it rests */
  struct holds_gap gaps[HOLDS_GAPS];
  unsigned next;
};

/* To be called first at each look.  What is more than HOLDS_LATE_MS later than holds_pause_ms after the last
 * one is a gap; it may be earlier. */
void holds_look(struct holds_watcher *w, int64_t now);

/* To be called last at each look: are all threads idle, and has none of them woken the watcher for this look?
 */
void holds_saw(struct holds_watcher *w, bool idle);

/* How long to wait until the next look. */
int holds_pause_ms(const struct holds_watcher *w);

/* The time from begin to end without the last gaps. */
int64_t holds_without_gaps(const struct holds_watcher *w, int64_t begin, int64_t end);

/* A thread that counts its progress. */
struct holds_thread {
  unsigned progress;
  int64_t held; /* since when, in looks, its progress has not changed */
  bool counted, told;
};

enum holds_event {
  HOLDS_NOTHING,
  HOLDS_BEGAN, /* it is held for more than HOLDS_NS: to be counted */
  HOLDS_LASTS, /* it is held for more than HOLDS_LONG, and this has not been told */
  HOLDS_ENDED, /* such a hold has ended; *held is how long it was */
};

/* What is new of a thread at this look.  idle: the thread waits for work.  *held: for how long it is held, a
 * little less than the truth. */
enum holds_event holds_progress(const struct holds_watcher *w, struct holds_thread *t, unsigned progress,
                                bool idle, int64_t *held);

/* How many lines may be logged: HOLDS_LINES at once, and one more every HOLDS_LINE_NS. */
enum { HOLDS_LINES = 5 };
#define HOLDS_LINE_NS INT64_C(10000000000)
struct holds_lines {
  int64_t since;   /* from when on lines were saved */
  int64_t dropped; /* lines since the last that was allowed */
};
bool holds_line(struct holds_lines *l, int64_t now);

/* --- by the loop ---------------------------------------------------------------------------------------- */

struct holds_label {
  const char *kind, *name; /* of static storage; may be NULL */
};

struct holds_loop {
  struct holds_label now, most;     /* what it does; what has taken the longest since the turn began */
  int64_t since, longest, named;    /* nanoseconds; named: of all that had a label */
  _Atomic(const char *) kind, name; /* `now`, for the watcher */
  atomic_uint turns;
};

/* The loop begins to do something else.  Costs some twenty nanoseconds.  Accepts a loop that is NULL. */
static inline void holds_note(struct holds_loop *l, const char *kind, const char *name) {
  if (!l) return;
  int64_t now = clock_ns();
  if (l->now.kind) {
    l->named += now - l->since;
    if (now - l->since > l->longest) l->longest = now - l->since, l->most = l->now;
  }
  l->since = now;
  l->now = (struct holds_label){kind, name};
  atomic_store_explicit(&l->kind, kind, memory_order_relaxed);
  atomic_store_explicit(&l->name, name, memory_order_relaxed);
}

/* Callbacks ran from begin to end.  True when that was a hold, unless gaps explain it.  *who is what took the
 * longest of it.  The next callbacks begin then. */
static inline bool holds_span(struct holds_loop *l, int64_t begin, int64_t end, struct holds_label *who) {
  bool is_hold = end - begin > HOLDS_NS;
  *who = (struct holds_label){NULL, NULL};
  if (is_hold || l->now.kind) {
    holds_note(l, NULL, NULL);
    bool unnamed = end - begin - l->named - HOLDS_ROUNDED > l->longest;
    *who = unnamed ? (struct holds_label){NULL, NULL} : l->most;
    l->longest = l->named = 0;
    l->most = l->now;
  }
  atomic_store_explicit(&l->turns, l->turns + 1, memory_order_relaxed);
  return is_hold;
}

/* How much processor time the callbacks of one turn took, at most: what a machine that runs much else adds is
 * not in it, and neither is waiting.  For each label the longest; labels beyond HOLDS_WORKS are counted
 * together. */
enum { HOLDS_STEPS = 7, HOLDS_WORKS = 64 };
extern const int holds_steps_ms[HOLDS_STEPS];

struct holds_work {
  struct holds_label who; /* kind NULL: work that has no name */
  int64_t longest;        /* nanoseconds */
};

struct holds_turns {
  int64_t over[HOLDS_STEPS]; /* spans that took longer than holds_steps_ms */
  struct holds_work works[HOLDS_WORKS + 1];
  int count;
  int64_t cpu, cpu_at; /* the thread's processor time when it was last read, and when that was; or 0 */
};

/* Another thread runs the loop from now on. */
static inline void holds_other_thread(struct holds_turns *t) {
  t->cpu = t->cpu_at = 0;
}

/* Notes a span for which holds_span has said `who`.  To be called on the thread of the loop, for each span.
 * The thread's clock, which costs a system call, is read at most every half millisecond: the time is right to
 * within that. */
void holds_turn(struct holds_turns *t, int64_t begin, int64_t end, const struct holds_label *who);

#endif
