/* Links and monitors of a hosted process, many of them. */
#include "agent/process/hosted.h"

#include "agent_host.h"
#include "core/reason.h"
#include "tap.h"

#include <stdlib.h>

enum { MANY = 50000, LATE = 2 * HOSTED_FAREWELLS };

static npid watcher(const struct agent_host *h, int i) {
  return npid_make(h->far, (uint64_t)i + 1);
}

static npid ref_of(int i) {
  return npid_as_ref(npid_make(0, (uint64_t)i + 1));
}

static void signal_from(struct agent_host *h, struct witness *w, enum signal_kind kind, int i) {
  struct signal *s = signal_new(kind, w->hosted.pid, watcher(h, i), ref_of(i), NULL);
  if (!s) abort();
  hosted_signal(&w->hosted, s);
}

/* How many signals have gone to other nodes, and frees them. */
static int take_sent(struct agent_host *h, enum signal_kind kind, char *seen) {
  int count = 0;
  agent_host_pump(h);
  for (struct signal *s; (s = h->sent);) {
    h->sent = s->next;
    count += s->kind == kind;
    if (seen) seen[npid_number(s->to) - 1]++;
    signal_free(s);
  }
  h->sent_end = &h->sent;
  return count;
}

/* Removing each of many bonds, in an order that is not theirs, leaves those that were not removed. Where each
 * is searched for, this takes minutes. */
static void test_find(struct agent_host *h) {
  struct witness w;
  witness_begin(h, &w);
  for (int i = 0; i < MANY; i++) signal_from(h, &w, SIGNAL_MONITOR, i);
  for (int i = 0; i < MANY; i++) signal_from(h, &w, SIGNAL_MONITOR, i);
  ok(w.hosted.bond_count == MANY, "a monitor that is there already is not added");
  for (int i = 0; i < MANY; i += 2) signal_from(h, &w, SIGNAL_DEMONITOR, (int)((i + 7919L * 2) % MANY));
  ok(w.hosted.bond_count == MANY / 2, "half of the monitors are removed");
  signal_from(h, &w, SIGNAL_DEMONITOR, 0);
  ok(w.hosted.bond_count == MANY / 2, "a monitor that is not there is not removed");
  for (int i = 1; i < MANY; i += 2) signal_from(h, &w, SIGNAL_DEMONITOR, i);
  ok(w.hosted.bond_count == 0, "the other half, too");
  signal_from(h, &w, SIGNAL_MONITOR, 1);
  ok(w.hosted.bond_count == 1, "a monitor can be added again");
  witness_end(&w);
  ok(take_sent(h, SIGNAL_DOWN, NULL) == 1, "and fires");
}

static void test_farewell(struct agent_host *h) {
  static char seen[LATE + 1];
  struct witness w;
  witness_begin(h, &w);
  for (int i = 0; i <= LATE; i++) signal_from(h, &w, SIGNAL_MONITOR, i);
  witness_end(&w);
  ok(take_sent(h, SIGNAL_DOWN, seen) == HOSTED_FAREWELLS,
     "in the turn of the end, HOSTED_FAREWELLS are told");
  ok(take_sent(h, SIGNAL_DOWN, seen) == HOSTED_FAREWELLS, "in the next turn as many");
  ok(take_sent(h, SIGNAL_DOWN, seen) == 1, "then the rest");
  ok(take_sent(h, SIGNAL_DOWN, seen) == 0, "then nobody");
  int once = 0;
  for (int i = 0; i <= LATE; i++) once += seen[i] == 1;
  ok(once == LATE + 1, "each was told once");
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_find(h);
  test_farewell(h);
  agent_host_free(h);
  return tap_end();
}
