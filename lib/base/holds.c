/* Invariant: gaps do not overlap, and each ended at a look; older gaps than HOLDS_GAPS are forgotten. */
#include "base/holds.h"

#define MS INT64_C(1000000)

void holds_look(struct holds_watcher *w, int64_t now) {
  int64_t due = w->looked + HOLDS_LOOK_MS * MS;
  bool late = w->looked && now - due > HOLDS_LATE_MS * MS;
  w->step = !w->looked ? 0 : late ? HOLDS_LOOK_MS * MS : now - w->looked;
  if (late) w->gaps[w->next++ % HOLDS_GAPS] = (struct holds_gap){due, now};
  w->looked = now;
}

int64_t holds_without_gaps(const struct holds_watcher *w, int64_t begin, int64_t end) {
  int64_t left = end - begin;
  for (int i = 0; i < HOLDS_GAPS; i++) {
    int64_t from = w->gaps[i].from > begin ? w->gaps[i].from : begin;
    int64_t to = w->gaps[i].to < end ? w->gaps[i].to : end;
    if (to > from) left -= to - from;
  }
  return left;
}

enum holds_event holds_progress(const struct holds_watcher *w, struct holds_thread *t, unsigned progress,
                                bool idle, int64_t *held) {
  if (idle || progress != t->progress) {
    bool counted = t->counted;
    *held = t->held;
    *t = (struct holds_thread){.progress = progress};
    return counted ? HOLDS_ENDED : HOLDS_NOTHING;
  }
  *held = t->held += w->step;
  if (!t->counted && t->held > HOLDS_NS) return t->counted = true, HOLDS_BEGAN;
  if (!t->told && t->held > HOLDS_LONG) return t->told = true, HOLDS_LASTS;
  return HOLDS_NOTHING;
}

bool holds_line(struct holds_lines *l, int64_t now) {
  int64_t oldest = now - HOLDS_LINES * HOLDS_LINE_NS;
  if (l->since < oldest) l->since = oldest;
  if (l->since + HOLDS_LINE_NS > now) return l->dropped++, false;
  l->since += HOLDS_LINE_NS;
  return true;
}
