/* What each kind of signal does to a process, and what process_info reports: signals and info, without
 * threads. */
#include "vm/process/signals.h"
#include "vm/process/info.h"
#include "vm/process/ties.h"

#include "still_vm.h"
#include "tap.h"

#include <limits.h>
#include <stdlib.h>

enum { BOUND = 8 }; /* messages of a mailbox */

static struct still st;
static struct process *p;
static npid far1;

/* Makes a process that receives no message. */
static void begin(bool traps) {
  still_clear(&st);
  p = still_spawn(&st, "receive_match(function() return false end)");
  p->trap_exit = traps;
}

static void give(enum signal_kind kind, npid from, npid ref, uint32_t epoch, struct term *t) {
  struct signal *s = signal_new(kind, p->pid, from, ref, t);
  s->epoch = epoch;
  process_signal(p, s);
}

static struct term *word(const char *text) {
  return term_build("s", text);
}

static bool newest_is(const char *first) {
  struct signal *s = p->mailbox.first;
  while (s && s->next) s = s->next;
  return s && term_is_word(s->term, first);
}

static void test_exits(void) {
  begin(false);
  give(SIGNAL_EXIT, far1, NPID_NONE, 0, word("normal"));
  ok(!p->preemptible.end && p->mailbox.count == 0, "exit with normal, by another, does nothing");
  give(SIGNAL_EXIT, p->pid, NPID_NONE, 0, word("normal"));
  ok(term_is_word(p->preemptible.end, "normal"), "by itself it ends the process");
  give(SIGNAL_EXIT, far1, NPID_NONE, 0, word("later"));
  ok(term_is_word(p->preemptible.end, "normal"), "and the first reason stands");
  begin(true);
  give(SIGNAL_EXIT, far1, NPID_NONE, 0, word("why"));
  ok(!p->preemptible.end && newest_is("EXIT"), "one that traps exits gets a message");
  give(SIGNAL_EXIT, far1, NPID_NONE, 0, word("kill"));
  ok(term_is_word(p->preemptible.end, "killed"), "but is killed by kill");
  begin(false);
  give(SIGNAL_LINK_EXIT, far1, NPID_NONE, 0, word("why"));
  ok(!p->preemptible.end, "a link's exit from one to whom there is no link is void");
  if (process_link(p, far1, 0)) abort();
  give(SIGNAL_LINK_EXIT, far1, NPID_NONE, 0, word("kill"));
  ok(term_is_word(p->preemptible.end, "kill"), "by a link kill is a reason as any other");
}

/* Signals to a process that a signal has ended are answered as if it did not exist, although its code has not
 * stopped yet. */
static void test_after_end(void) {
  npid ref = vm_ref(st.vm);
  begin(false);
  give(SIGNAL_EXIT, far1, NPID_NONE, 0, word("why"));
  give(SIGNAL_MONITOR, st.tester, ref, 0, NULL);
  give(SIGNAL_MESSAGE, st.tester, NPID_NONE, 0, word("x"));
  struct signal *s = still_take(&st, SIGNAL_DOWN);
  ok(s && s->ref == ref && term_is_word(s->term, "noproc") && p->mailbox.count == 0,
     "what comes after what ends it finds nobody");
  signal_free(s);
}

static void test_late(void) {
  begin(true);
  if (process_link(p, far1, 5)) abort();
  give(SIGNAL_LINK_EXIT, far1, NPID_NONE, 4, word("late"));
  ok(process_linked(p, far1) && p->mailbox.count == 0,
     "a link's exit of a dead connection is void for a later link");
  give(SIGNAL_UNLINK, far1, vm_ref(st.vm), 4, NULL);
  struct signal *s = still_take(&st, SIGNAL_UNLINK_ACK);
  ok(process_linked(p, far1) && s, "so is an unlink, but it is acknowledged");
  signal_free(s);
  give(SIGNAL_LINK_EXIT, far1, NPID_NONE, 5, word("now"));
  ok(!process_linked(p, far1) && newest_is("EXIT"), "one of the link's own connection is not");
}

static void test_monitors(void) {
  npid ref = vm_ref(st.vm);
  begin(false);
  give(SIGNAL_DOWN, far1, ref, 0, word("why"));
  ok(p->mailbox.count == 0, "a DOWN without a monitor is void");
  if (process_monitor(p, ref, far1, 0)) abort();
  give(SIGNAL_DOWN, far1, ref, 0, word("why"));
  give(SIGNAL_DOWN, far1, ref, 0, word("why"));
  ok(p->mailbox.count == 1 && newest_is("DOWN"), "with one it is a message, once");
  ok(p->ties->monitors.len == 0, "and the monitor is over");
}

/* A mailbox is full at the bound and has room again at half of it; at twice the bound the process is
 * ended. */
static void test_bounds(void) {
  begin(false);
  struct ptab_slot *slot = ptab_find(&st.vm->ptab, npid_number(p->pid));
  for (int i = 0; i < BOUND - 1; i++) give(SIGNAL_MESSAGE, far1, NPID_NONE, 0, word("x"));
  ok(!atomic_load(&slot->full), "a mailbox below its bound has room");
  give(SIGNAL_MESSAGE, far1, NPID_NONE, 0, word("x"));
  ok(atomic_load(&slot->full) && vm_lack(st.vm, p->pid) == p->pid, "at its bound it has none");
  while (p->mailbox.count > BOUND / 2) process_take(p, &p->mailbox.first);
  ok(atomic_load(&slot->full), "nor when half of the bound is left");
  process_take(p, &p->mailbox.first);
  ok(!atomic_load(&slot->full), "below that it has");
  while (p->mailbox.count < 2 * BOUND - 1) give(SIGNAL_MESSAGE, far1, NPID_NONE, 0, word("x"));
  ok(!p->preemptible.end, "who cannot wait may send up to twice the bound");
  give(SIGNAL_MESSAGE, far1, NPID_NONE, 0, word("x"));
  ok(term_is_word(p->preemptible.end, "memory"), "there the process ends");
}

static void test_order(void) {
  begin(false);
  bool good = true;
  for (int64_t i = 0; i < BOUND; i++)
    give(SIGNAL_MESSAGE, i % 2 ? far1 : st.tester, NPID_NONE, 0, term_build("i", i));
  for (int64_t i = 0; i < BOUND; i++) {
    struct term_reader r = term_read(process_take(p, &p->mailbox.first)->term);
    good = good && term_next(&r).i == i;
  }
  ok(good, "messages are taken in the order in which they came");
}

static void test_replies(void) {
  npid ref = vm_ref(st.vm), monitor = vm_ref(st.vm);
  begin(false);
  p->call = ref, p->callee = npid_make(st.far, 0), p->call_epoch = 1;
  give(SIGNAL_REPLY, p->callee, vm_ref(st.vm), 0, term_build("b", 1));
  ok(p->call == ref && !p->reply, "a reply to another call is void");
  p->callee_ref = monitor;
  if (process_monitor(p, monitor, p->callee, 1)) abort();
  give(SIGNAL_REPLY, p->callee, ref, 0, term_build("bp", 1, far1));
  ok(p->call == NPID_NONE && p->reply && process_demonitor(p, monitor) == far1,
     "a spawn's monitor goes over to the process that was spawned");
  begin(false);
  p->call = ref, p->callee = npid_make(st.far, 0), p->callee_ref = monitor, p->call_epoch = 1;
  if (process_monitor(p, monitor, p->callee, 1)) abort();
  give(SIGNAL_REPLY, p->callee, ref, 0, term_build("bss", 0, "code", "no"));
  ok(process_demonitor(p, monitor) == NPID_NONE, "and ends when nothing was");
}

/* The connection ends when the LINK of a process that was spawned has come, but not the reply. */
static void test_lost_reply(void) {
  struct term *reason = word("noconnection");
  struct ties_loss lost = {.incarnation = st.far, .epoch = 1, .reason = reason, .pid = NPID_NONE};
  npid ref = vm_ref(st.vm), child;
  begin(true);
  p->call = ref, p->callee = npid_make(st.far, 0), p->call_epoch = 1;
  give(SIGNAL_LINK, npid_make(st.far, 8), vm_ref(st.vm), 1, NULL);
  give(SIGNAL_LINK, npid_make(st.far + 1, 8), ref, 1, NULL);
  ok(p->child == NPID_NONE, "a link by another process, or by one of another node, says nothing of a call");
  give(SIGNAL_LINK, far1, ref, 1, NULL);
  process_node_down(p, &lost, INT_MAX);
  ties_loss_next(&lost);
  struct term_reader r = term_read(p->reply);
  ok(p->call == NPID_NONE && term_next(&r).tag == TERM_TRUE && term_get_pid(&r, &child) && child == far1,
     "a spawn whose process has linked itself succeeds without its reply");
  ok(p->mailbox.count == 2 && process_linked(p, npid_make(st.far + 1, 8)) && newest_is("EXIT"),
     "and the exit signal of the lost link follows");
  term_unref(reason);
}

/* --- info --- */

static struct term_value field(struct term *t, const char *key) {
  struct term_reader r = term_read(t), at;
  term_next(&r);
  return term_map_find(r, key, &at) ? term_next(&at) : (struct term_value){.tag = TERM_END};
}

static bool is_text(struct term_value v, const char *want) {
  return v.tag == TERM_STR && v.len == strlen(want) && memcmp(v.s, want, v.len) == 0;
}

static void test_info(void) {
  begin(true);
  give(SIGNAL_MESSAGE, far1, NPID_NONE, 0, word("x"));
  struct term *t = process_info(p, false);
  ok(is_text(field(t, "kind"), "thread") && field(t, "leader").pid == st.tester &&
         field(t, "mailbox").i == 1 && field(t, "memory").i > 0 && is_text(field(t, "what"), "test:0"),
     "info says kind, leader, mailbox, memory and code");
  ok(field(t, "name").tag == TERM_END && field(t, "links").tag == TERM_END,
     "no name when there is none, and no ties");
  term_unref(t);
  if (names_register(st.names, "alice", p->pid, 0) || process_link(p, far1, 0)) abort();
  t = process_info(p, true);
  ok(is_text(field(t, "name"), "alice") && field(t, "trap_exit").tag == TERM_TRUE &&
         field(t, "links").count == 1,
     "process_info has its name and ties, too");
  term_unref(t);
  names_unregister(st.names, "alice", 0);
  give(SIGNAL_CALL, st.tester, vm_ref(st.vm), 0, word("info"));
  struct signal *s = still_take(&st, SIGNAL_REPLY);
  ok(s && is_text(field(s->term, "kind"), "thread"), "a call is answered on its behalf, though it waits");
  signal_free(s);
}

static void test_states(void) {
  static const struct {
    enum process_state state;
    const char *text;
  } cases[] = {
      {PROCESS_READY, "ready"},     {PROCESS_RUNNING, "running"}, {PROCESS_RECEIVES, "receive"},
      {PROCESS_MATCHES, "receive"}, {PROCESS_SLEEPS, "sleep"},    {PROCESS_CALLS, "call"},
      {PROCESS_SENDS, "send"},
  };
  begin(false);
  bool good = true;
  uint8_t was = p->state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    p->state = (uint8_t)cases[i].state;
    struct term *t = process_info(p, false);
    good = good && is_text(field(t, "state"), cases[i].text);
    term_unref(t);
  }
  p->state = was;
  ok(good, "each state has its word");
}

int main(void) {
  still_init(&st, &(struct vm_config){.schedulers = 1, .mailbox_count = BOUND});
  far1 = npid_make(st.far, 1);
  test_exits();
  test_after_end();
  test_late();
  test_monitors();
  test_bounds();
  test_order();
  test_replies();
  test_lost_reply();
  test_info();
  test_states();
  still_finish(&st);
  return tap_end();
}
