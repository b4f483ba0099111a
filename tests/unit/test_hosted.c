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

/* --- the loss of a node --- */

static void link_from(struct agent_host *h, struct witness *w, uint32_t node, uint64_t number) {
  struct signal *s = signal_new(SIGNAL_LINK, w->hosted.pid, npid_make(node, number), NPID_NONE, NULL);
  if (!s) abort();
  s->epoch = nodetab_epoch(h->agent.nodes, node);
  hosted_signal(&w->hosted, s);
}

static void lose_far(struct agent_host *h) {
  struct term *reason = reason_word("noconnection");
  uint32_t epoch = nodetab_part(h->agent.nodes, h->far);
  hosted_node_down(&h->agent, &(struct hosted_loss){h->far, epoch, reason});
  term_unref(reason);
}

static bool lives(struct agent_host *h, const struct witness *w, npid pid) {
  return vm_host_process(h->agent.vm, pid) == &w->hosted;
}

/* The node comes back before the loss has been told to all. */
static void test_loss(struct agent_host *h) {
  struct witness linked, watched, elsewhere, young;
  witness_begin(h, &linked);
  witness_begin(h, &watched);
  witness_begin(h, &elsewhere);
  npid pid = linked.hosted.pid;
  link_from(h, &linked, h->far, 1);
  link_from(h, &elsewhere, h->farther, 1);
  for (int i = 0; i < MANY; i++) signal_from(h, &watched, SIGNAL_MONITOR, i);
  lose_far(h);
  size_t left = watched.hosted.bond_count;
  ok(left >= MANY - HOSTED_FAREWELLS && left < MANY,
     "a turn removes some of %d monitors of a lost node: %zu are left", MANY, left);
  ok(lives(h, &linked, pid), "a link further back has not fired");
  witness_begin(h, &young);
  npid young_pid = young.hosted.pid;
  link_from(h, &young, h->far, 2);
  for (int i = MANY; i < MANY + 10; i++) signal_from(h, &watched, SIGNAL_MONITOR, i);
  for (int i = 0; i < MANY; i += 3) signal_from(h, &watched, SIGNAL_DEMONITOR, i);
  for (int i = 0; i < 2 * HOSTED_REMOVAL * MANY / HOSTED_FAREWELLS; i++) agent_host_pump(h);
  ok(errands_idle(&h->agent.errands), "after some turns nothing is left to do");
  ok(watched.hosted.bond_count == 10, "the monitors by the next connection stay (%zu)",
     watched.hosted.bond_count);
  ok(!lives(h, &linked, pid), "the link has fired");
  ok(lives(h, &elsewhere, elsewhere.hosted.pid) && elsewhere.hosted.bond_count == 1,
     "a link to another node has not");
  ok(lives(h, &young, young_pid) && young.hosted.bond_count == 1, "nor one of a process that began since");
  witness_end(&young);
  witness_end(&watched);
  witness_end(&elsewhere);
  take_sent(h, SIGNAL_DOWN, NULL);
}

/* The process of the lost node links once more, by the next connection, before its first link has fired. */
static void test_stale_link(struct agent_host *h) {
  struct witness linked, watched;
  witness_begin(h, &linked);
  witness_begin(h, &watched);
  npid pid = linked.hosted.pid;
  link_from(h, &linked, h->far, 1);
  for (int i = 0; i < LATE; i++) signal_from(h, &watched, SIGNAL_MONITOR, i);
  lose_far(h);
  ok(lives(h, &linked, pid), "a link that has not fired");
  link_from(h, &linked, h->far, 1);
  ok(!lives(h, &linked, pid), "fires before another takes its place");
  struct signal *s = agent_host_sent(h, SIGNAL_LINK_EXIT);
  ok(s && term_is_word(s->term, "noproc"), "which is refused, as its process is gone");
  signal_free(s);
  witness_end(&watched);
  take_sent(h, SIGNAL_DOWN, NULL);
  for (int i = 0; i < 2 * HOSTED_REMOVAL * LATE / HOSTED_FAREWELLS; i++) agent_host_pump(h);
  ok(errands_idle(&h->agent.errands), "a walk goes on behind a process that ends");
}

/* A late signal by a lost connection does not end a link by the present one. */
static void test_late(struct agent_host *h) {
  struct witness w;
  witness_begin(h, &w);
  npid pid = w.hosted.pid;
  uint32_t first = nodetab_part(h->agent.nodes, h->far);
  link_from(h, &w, h->far, 1);
  static const enum signal_kind late[] = {SIGNAL_UNLINK, SIGNAL_LINK_EXIT};
  for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
    struct signal *s = signal_new(late[i], pid, npid_make(h->far, 1), ref_of(1), term_build("s", "late"));
    if (!s) abort();
    s->epoch = first;
    hosted_signal(&w.hosted, s);
    ok(lives(h, &w, pid) && w.hosted.bond_count == 1, "a late %s changes nothing", signal_wire(late[i]));
  }
  witness_end(&w);
  take_sent(h, SIGNAL_LINK_EXIT, NULL);
}

int main(void) {
  struct agent_host *h = agent_host_new();
  test_find(h);
  test_farewell(h);
  test_loss(h);
  test_stale_link(h);
  test_late(h);
  agent_host_free(h);
  return tap_end();
}
