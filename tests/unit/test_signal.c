#include "core/signal.h"

#include "tap.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static void test_wire(void) {
  int good = 0, silent = 0;
  for (int kind = 0; kind < SIGNAL_KINDS; kind++) {
    const char *wire = signal_wire((enum signal_kind)kind);
    if (wire)
      good += signal_from_wire(wire) == kind;
    else
      silent++;
  }
  ok(good + silent == SIGNAL_KINDS && silent == 3,
     "every wire name leads back to its kind; three never travel");
  ok(signal_from_wire("nonsense") == -1 && !signal_wire(SIGNAL_KINDS), "what is none is none");
}

static void test_order(void) {
  struct inbox in = {.bytes = 0};
  struct term *t = term_build("s", "hello");
  ok(!inbox_take(&in), "nothing in an empty inbox");
  bool first = inbox_push(&in, signal_new(SIGNAL_MESSAGE, 1, 0, NPID_NONE, term_ref(t)));
  bool second = inbox_push(&in, signal_new(SIGNAL_MESSAGE, 2, 0, NPID_NONE, NULL));
  ok(first && !second, "only the first finds it empty");
  ok(in.bytes == 2 * sizeof(struct signal) + sizeof *t + t->size, "it weighs what is in it");
  struct signal *s = inbox_take(&in), *next = s->next;
  ok(s->to == 1 && next->to == 2 && !next->next && !in.bytes, "oldest first, and then it weighs nothing");
  signal_free(s), signal_free(next), signal_free(NULL);
  term_unref(t);
}

enum { WRITERS = 3, EACH = 50000 };

struct writer {
  struct inbox *in;
  npid from;
};

static void *write_many(void *data) {
  const struct writer *w = data;
  intptr_t lost = 0;
  for (uint64_t i = 0; i < EACH; i++) {
    struct signal *s = signal_new(SIGNAL_MESSAGE, i, w->from, NPID_NONE, term_build("i", (int64_t)i));
    if (s)
      inbox_push(w->in, s);
    else
      lost++;
  }
  return (void *)lost;
}

/* With several writers and a reader, no signal is lost, and the signals of each writer keep their order. */
static void test_threads(void) {
  struct inbox in = {.bytes = 0};
  pthread_t threads[WRITERS];
  struct writer writers[WRITERS];
  uint64_t next[WRITERS] = {0};
  int wrong = 0;
  for (npid i = 0; i < WRITERS; i++) {
    writers[i] = (struct writer){&in, i};
    wrong += pthread_create(&threads[i], NULL, write_many, &writers[i]) != 0;
  }
  for (int got = 0; got < WRITERS * EACH && !wrong;) {
    struct signal *s = inbox_take(&in);
    if (!s) sched_yield();
    while (s) {
      struct signal *after = s->next;
      struct term_reader r = term_read(s->term);
      int64_t v = -1;
      wrong += s->to != next[s->from]++ || !term_get_int(&r, &v) || (uint64_t)v != s->to;
      signal_free(s);
      s = after;
      got++;
    }
  }
  for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
  ok(!wrong, "%d writers of %d signals: none lost, none out of order", WRITERS, EACH);
  ok(!inbox_take(&in) && in.bytes == 0, "and the weight is back to nothing");
}

int main(void) {
  test_wire();
  test_order();
  test_threads();
  return tap_end();
}
