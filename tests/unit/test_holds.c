/* Holds: what the watcher makes of what it sees, with a made-up clock. */
#include "base/holds.h"

#include "tap.h"

#include <string.h>

#define MS INT64_C(1000000)

static struct holds_watcher w;
static int64_t now;

static void look(int ms) {
  now += ms * MS;
  holds_look(&w, now);
}

static void begin(void) {
  w = (struct holds_watcher){0};
  now = 1000 * MS;
  look(0);
}

static void test_thread(void) {
  struct holds_thread t = {.progress = 7};
  int64_t held = 0;
  begin();
  int events = 0, looks = 0;
  while (looks < 4) look(25), looks++, events += holds_progress(&w, &t, 7, false, &held) != HOLDS_NOTHING;
  ok(!events && held == 100 * MS, "100 ms without progress are no hold yet");
  look(25);
  ok(holds_progress(&w, &t, 7, false, &held) == HOLDS_BEGAN && held == 125 * MS, "more is one");
  look(25);
  ok(holds_progress(&w, &t, 7, false, &held) == HOLDS_NOTHING, "which is counted once");
  while (held <= 1000 * MS) {
    look(25);
    events = (int)holds_progress(&w, &t, 7, false, &held);
  }
  ok(events == HOLDS_LASTS, "after a second it is told");
  look(25);
  ok(holds_progress(&w, &t, 8, false, &held) == HOLDS_ENDED && held == 1025 * MS, "its end tells its length");
  look(25);
  ok(holds_progress(&w, &t, 9, false, &held) == HOLDS_NOTHING, "progress is no event");
}

static void test_idle(void) {
  struct holds_thread t = {.progress = 7};
  int64_t held;
  int events = 0;
  begin();
  for (int i = 0; i < 100; i++) look(25), events += holds_progress(&w, &t, 7, true, &held) != HOLDS_NOTHING;
  ok(!events, "an idle thread is not held");
  for (int i = 0; i < 3; i++) look(25), events += holds_progress(&w, &t, 7, false, &held) != HOLDS_NOTHING;
  ok(!events && held == 75 * MS, "the time in which it was idle does not count");
}

static void test_stopped(void) {
  struct holds_thread t = {.progress = 7};
  int64_t held, before;
  begin();
  look(25);
  holds_progress(&w, &t, 7, false, &held);
  before = now;
  look(60000); /* SIGSTOP for a minute */
  ok(holds_progress(&w, &t, 7, false, &held) == HOLDS_NOTHING && held == 50 * MS,
     "a stopped machine holds nobody");
  ok(holds_without_gaps(&w, before - 10 * MS, now) == 35 * MS, "nor a callback that was stopped");
  ok(holds_without_gaps(&w, before - 200 * MS, now) == 225 * MS,
     "but a callback that took long besides counts");
  look(60);
  ok(holds_without_gaps(&w, now - 60 * MS, now) == 60 * MS, "a look that is a little late makes no gap");
  for (int i = 0; i < 40; i++) look(1000);
  ok(holds_without_gaps(&w, now - 2000 * MS, now) == 50 * MS, "of many gaps the last are known");
}

static void test_rest(void) {
  struct holds_thread t = {.progress = 7};
  int64_t held;
  begin();
  for (int i = 0; i < HOLDS_IDLE_LOOKS - 1; i++) look(25), holds_saw(&w, true);
  ok(holds_pause_ms(&w) == HOLDS_LOOK_MS, "the watcher does not rest after a few idle looks");
  look(25), holds_saw(&w, true);
  ok(holds_pause_ms(&w) == HOLDS_REST_MS, "after some more it does");
  look(250), holds_saw(&w, true);
  ok(holds_without_gaps(&w, now - 200 * MS, now) == 200 * MS && holds_pause_ms(&w) == HOLDS_REST_MS,
     "its rest is no gap");
  look(320);
  ok(holds_without_gaps(&w, now - 320 * MS, now) == 250 * MS, "but what is longer than that is");
  holds_progress(&w, &t, 7, true, &held);
  holds_saw(&w, true);
  look(250);
  ok(holds_progress(&w, &t, 7, false, &held) == HOLDS_NOTHING && held == 25 * MS,
     "nobody was held while it has rested");
  holds_saw(&w, true);
  look(100);
  ok(holds_without_gaps(&w, now - 100 * MS, now) == 100 * MS, "a thread that wakes it makes no gap");
  holds_saw(&w, false);
  ok(holds_pause_ms(&w) == HOLDS_LOOK_MS, "but it rests no more");
  look(100);
  ok(holds_without_gaps(&w, now - 100 * MS, now) == 25 * MS, "and a late look is a gap again");
}

static void test_lines(void) {
  struct holds_lines l = {0};
  int lines = 0;
  now = INT64_C(1) << 40;
  for (int i = 0; i < 100; i++) lines += holds_line(&l, now);
  ok(lines == HOLDS_LINES && l.dropped == 100 - HOLDS_LINES, "a burst of lines is cut");
  ok(!holds_line(&l, now + HOLDS_LINE_NS - 1) && holds_line(&l, now + HOLDS_LINE_NS) &&
         !holds_line(&l, now + HOLDS_LINE_NS),
     "then there is one at a time");
}

static void spin(int ms) {
  int64_t until = clock_ns() + ms * MS;
  while (clock_ns() < until) continue;
}

static void test_loop(void) {
  static struct holds_loop l;
  struct holds_label who = {NULL, NULL};
  holds_note(&l, "short", NULL);
  ok(!holds_span(&l, 0, 100 * MS, &who) && !l.now.kind && l.turns == 1, "100 ms are no hold");
  holds_note(&l, "first", "a");
  spin(20);
  holds_note(&l, "longest", "b");
  spin(60);
  holds_note(&l, "last", "c");
  spin(20);
  ok(holds_span(&l, 0, 101 * MS, &who) && who.kind && !strcmp(who.kind, "longest") && !strcmp(who.name, "b"),
     "of a hold the label is told that took the longest: %s", who.kind);
  ok(!holds_span(&l, 0, 1, &who) && l.turns == 3, "the next turn begins anew");
  ok(holds_span(&l, 0, 200 * MS, &who) && !who.kind, "work without a label has none");
}

/* What `work` uses of the processor, as a turn. */
static void turn(struct holds_turns *t, const char *kind, const char *name, void (*work)(int ms), int ms) {
  int64_t begin = clock_ns();
  work(ms);
  holds_turn(t, begin, clock_ns(), &(struct holds_label){kind, name});
}

static void wait_for(int ms) {
  nanosleep(&(struct timespec){.tv_nsec = ms * MS}, NULL);
}

static void burn(int ms) {
  struct timespec t;
  int64_t begin = -1, now_ns = 0;
  while (begin < 0 || now_ns - begin < ms * MS) {
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    now_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    if (begin < 0) begin = now_ns;
  }
}

static void test_turns(void) {
  static struct holds_turns t;
  turn(&t, NULL, NULL, wait_for, 1); /* reads the clock */
  turn(&t, "waiting", NULL, wait_for, 50);
  ok(t.over[0] == 0, "a turn that waits takes no processor time");
  turn(&t, "work", "a", burn, 6);
  ok(t.over[0] >= 1 && t.over[2] == 1 && t.over[6] == 0, "one that works is counted for each step below");
  char again[] = "work";
  turn(&t, again, "a", burn, 8);
  turn(&t, "work", "b", burn, 3);
  int found = 0;
  for (int i = 0; i < t.count; i++)
    found += !strcmp(t.works[i].who.kind, "work") &&
             t.works[i].longest >= (*t.works[i].who.name == 'a' ? 8 : 3) * MS;
  ok(found == 2 && t.count <= 3, "for each kind of work the longest is known");
  static char names[2 * HOLDS_WORKS][8];
  for (int i = 0; i < 2 * HOLDS_WORKS; i++) {
    snprintf(names[i], sizeof names[i], "%d", i);
    turn(&t, "many", names[i], burn, 2);
  }
  ok(t.count == HOLDS_WORKS + 1 && !strcmp(t.works[HOLDS_WORKS].who.kind, "other work") &&
         t.works[HOLDS_WORKS].longest >= 2 * MS,
     "beyond HOLDS_WORKS they are counted together");
}

int main(void) {
  test_thread();
  test_idle();
  test_stopped();
  test_rest();
  test_lines();
  test_loop();
  test_turns();
  return tap_end();
}
