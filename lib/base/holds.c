/* Invariant: gaps do not overlap, and each ended at a look; older gaps than HOLDS_GAPS are forgotten. */
#include "base/holds.h"

#include <string.h>

#define MS INT64_C(1000000)

void holds_look(struct holds_watcher *w, int64_t now) {
  int pause = holds_pause_ms(w);
  int64_t due = w->looked + pause * MS;
  bool late = w->looked && now - due > HOLDS_LATE_MS * MS;
  w->step = !w->looked ? 0 : late || pause > HOLDS_LOOK_MS ? HOLDS_LOOK_MS * MS : now - w->looked;
  if (late) w->gaps[w->next++ % HOLDS_GAPS] = (struct holds_gap){due, now};
  w->looked = now;
}

void holds_saw(struct holds_watcher *w, bool idle) {
  w->idle = !idle ? 0 : w->idle < HOLDS_IDLE_LOOKS ? w->idle + 1 : w->idle;
}

int holds_pause_ms(const struct holds_watcher *w) {
  return w->idle < HOLDS_IDLE_LOOKS ? HOLDS_LOOK_MS : HOLDS_REST_MS;
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

/* --- turns ---------------------------------------------------------------------------------------------- */

const int holds_steps_ms[HOLDS_STEPS] = {1, 2, 5, 10, 20, 50, 100};

static bool same_text(const char *a, const char *b) {
  return a == b || (a && b && !strcmp(a, b));
}

static struct holds_work *work_of(struct holds_turns *t, const struct holds_label *who) {
  for (int i = 0; i < t->count; i++)
    if (same_text(t->works[i].who.kind, who->kind) && same_text(t->works[i].who.name, who->name))
      return &t->works[i];
  if (t->count > HOLDS_WORKS) return &t->works[HOLDS_WORKS];
  struct holds_work *w = &t->works[t->count++];
  w->who = t->count > HOLDS_WORKS ? (struct holds_label){"other work", NULL} : *who;
  return w;
}

static void add_turn(struct holds_turns *t, int64_t used, const struct holds_label *who) {
  for (int i = 0; i < HOLDS_STEPS; i++) t->over[i] += used > holds_steps_ms[i] * MS;
  if (used <= holds_steps_ms[0] * MS) return;
  struct holds_work *w = work_of(t, who);
  if (used > w->longest) w->longest = used;
}

void holds_turn(struct holds_turns *t, int64_t begin, int64_t end, const struct holds_label *who) {
  bool is_long = end - begin > MS;
  if (!is_long && end - t->cpu_at < MS / 2) return;
  struct timespec clock;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &clock);
  int64_t cpu = (int64_t)clock.tv_sec * 1000000000 + clock.tv_nsec, used = cpu - t->cpu;
  if (is_long && t->cpu) add_turn(t, used < end - begin ? used : end - begin, who);
  t->cpu = cpu;
  t->cpu_at = end;
}
