/* Links and monitors of one process, and which of them a lost connection fires. */
#include "vm/process/ties.h"

#include "still_vm.h"
#include "tap.h"

#include <limits.h>
#include <stdlib.h>

static struct still st;
static struct process *p;
static npid far1, far2;

static void begin(void) {
  still_clear(&st);
  p = still_spawn(&st, "trap_exit(true) receive_match(function() return false end)");
}

static struct term *noconnection(void) {
  return term_build("s", "noconnection");
}

static void node_down(uint32_t incarnation, uint32_t epoch) {
  struct term *reason = noconnection();
  struct ties_loss lost = {.incarnation = incarnation, .epoch = epoch, .reason = reason, .pid = NPID_NONE};
  process_node_down(p, &lost, INT_MAX);
  ties_loss_next(&lost);
  term_unref(reason);
}

static uint32_t messages(void) {
  return p->mailbox.count;
}

static void test_links(void) {
  npid ref = vm_ref(st.vm), other_ref = vm_ref(st.vm);
  begin();
  ok(!process_linked(p, far1) && !process_unlink_by(p, far1) && !process_link_gone(p, far1),
     "without ties nothing stands");
  if (process_link_by(p, far1, 1)) abort();
  ok(process_linked(p, far1) && !process_linked(p, far2), "a link stands");
  if (process_unlink(p, far1, ref)) abort();
  ok(!process_linked(p, far1), "and is void as it is taken back");
  if (process_link_by(p, far1, 1)) abort();
  ok(!process_linked(p, far1), "what the other sends before it has acknowledged that is void, its LINK too");
  process_unlinked(p, far1, other_ref);
  if (process_link_by(p, far1, 1)) abort();
  ok(!process_linked(p, far1), "another unlink's acknowledgement changes nothing");
  process_unlinked(p, far1, ref);
  if (process_link_by(p, far1, 1)) abort();
  ok(process_linked(p, far1), "after its own the other may link again");
  if (process_unlink(p, far1, ref) || process_link(p, far1, 1)) abort();
  ok(process_linked(p, far1), "the process itself may link while one is void");
  process_unlinked(p, far1, ref);
  ok(process_linked(p, far1), "and the late acknowledgement does not end that link");
  ok(process_unlink_by(p, far1) && !process_linked(p, far1), "the other's unlink ends it at once");
  if (process_link(p, far1, 1)) abort();
  ok(process_link_gone(p, far1) && !process_link_gone(p, far1), "the other's end does so once");
}

static void test_monitors(void) {
  npid ref = vm_ref(st.vm);
  begin();
  int64_t heap = process_memory(p);
  if (process_monitor(p, ref, far1, 1)) abort();
  ok(process_memory(p) > heap, "who monitors answers for what that takes");
  ok(process_demonitor(p, ref) == far1 && process_demonitor(p, ref) == NPID_NONE,
     "a monitor is taken back once");
  ok(process_memory(p) == heap && p->ties->epochs.len == 0, "and nothing of it is left");
}

/* When a connection is lost, links over it or an earlier connection fire; links over a later connection and
 * links to other nodes do not. */
static void test_epochs(void) {
  npid early = vm_ref(st.vm), late = vm_ref(st.vm), elsewhere = vm_ref(st.vm);
  npid third = npid_make(st.far + 1, 1);
  begin();
  if (process_link(p, far1, 1) || process_link(p, far2, 3) || process_link(p, third, 1)) abort();
  if (process_monitor(p, early, far1, 1) || process_monitor(p, late, far2, 3) ||
      process_monitor(p, elsewhere, third, 1))
    abort();
  ok(process_link_outlives(p, far2, 2) && !process_link_outlives(p, far1, 2) &&
         !process_link_outlives(p, far1, 1),
     "a link outlives connections that were before its own");
  node_down(st.far, 2);
  ok(messages() == 2 && !process_linked(p, far1) && process_demonitor(p, early) == NPID_NONE,
     "what goes by a lost connection, or an earlier one, fires");
  ok(process_linked(p, far2) && process_linked(p, third), "links by a later one, or to other nodes, stand");
  node_down(st.far, 2);
  ok(messages() == 2, "the loss of a dead connection is told once");
  ok(process_demonitor(p, late) == far2 && process_demonitor(p, elsewhere) == third, "so do the monitors");
  if (process_monitor(p, late, far2, 3)) abort();
  node_down(st.far, 3);
  ok(messages() == 4 && !process_linked(p, far2), "and go with their own");
  struct signal *s = p->mailbox.first;
  bool good = true;
  for (; s; s = s->next) {
    struct term_reader r = term_read(s->term);
    struct term_value first = term_next(&r);
    good = good && (first.len == 4 ? !memcmp(first.s, "EXIT", 4) || !memcmp(first.s, "DOWN", 4) : false);
  }
  ok(good, "as EXIT and DOWN, for one that traps exits");
}

/* An unacknowledged unlink is removed with its connection, without a message. */
static void test_void_link(void) {
  npid ref = vm_ref(st.vm), watch = vm_ref(st.vm);
  begin();
  if (process_link(p, far1, 1) || process_unlink(p, far1, ref) || process_watch(p, watch, far2)) abort();
  node_down(st.far, 1);
  ok(messages() == 0, "a void link does not fire as its connection is lost");
  if (process_link_by(p, far1, 2)) abort();
  ok(process_linked(p, far1), "but is forgotten: over the next connection the other may link");
  ok(p->ties->watchers.len == 0, "and who watched over the lost one is, too");
}

static void test_call(void) {
  begin();
  npid ref = p->call = vm_ref(st.vm);
  p->callee = npid_make(st.far, 0), p->call_epoch = 2;
  node_down(st.far, 1);
  node_down(st.far + 1, 2);
  ok(p->call == ref, "a call does not end with another connection than its own");
  node_down(st.far, 2);
  struct term_reader r = term_read(p->reply);
  ok(p->call == NPID_NONE && term_next(&r).tag == TERM_FALSE, "with its own it fails");
}

static void test_end(void) {
  npid watch = vm_ref(st.vm), monitor = vm_ref(st.vm), kernel = vm_ref(st.vm), pid;
  begin();
  pid = p->pid;
  if (process_link(p, st.tester, 0) || process_link(p, far1, 1) || process_unlink(p, far1, vm_ref(st.vm)) ||
      process_watch(p, watch, st.tester) || process_monitor(p, monitor, far2, 1) ||
      process_monitor(p, kernel, NPID_KERNEL, 0))
    abort();
  struct term *reason = term_build("s", "why");
  struct ties_cut cut = {.ties = p->ties};
  p->ties = NULL;
  ok(ties_cut(p->isolate, &cut, pid, reason, 2) == 2, "ties are cut in parts");
  ok(ties_cut(p->isolate, &cut, pid, reason, 9) < 9 && !cut.ties, "until all are cut");
  struct signal *s = still_take(&st, SIGNAL_LINK_EXIT), *d = still_take(&st, SIGNAL_DOWN),
                *m = still_take(&st, SIGNAL_DEMONITOR);
  ok(s && s->to == st.tester && s->from == pid && term_is_word(s->term, "why"),
     "as it ends, whom it is linked to is told");
  ok(d && d->ref == watch && term_is_word(d->term, "why"), "and who watches it");
  ok(m && m->to == far2 && m->ref == monitor, "and whom it watched, though no kernel");
  ok(!still_take(&st, SIGNAL_LINK_EXIT) && !still_take(&st, SIGNAL_DEMONITOR) && !p->ties,
     "a void link tells nobody");
  signal_free(s), signal_free(d), signal_free(m);
  term_unref(reason);
}

static uint32_t count(struct term_reader r, const char *key) {
  struct term_reader at;
  return term_map_find(r, key, &at) ? term_next(&at).count : UINT32_MAX;
}

static void test_put(void) {
  struct term_writer w = TERM_WRITER_INIT;
  begin();
  if (process_link(p, far1, 1) || process_link(p, far2, 1) || process_unlink(p, far2, vm_ref(st.vm)) ||
      process_monitor(p, vm_ref(st.vm), far1, 1) || process_monitor(p, vm_ref(st.vm), far1, 1))
    abort();
  size_t at = term_open(&w, TERM_MAP);
  term_set_count(&w, at, process_put_ties(p, &w));
  struct term *t = term_from_writer(&w, 1);
  ok(count(term_read(t), "links") == 1 && count(term_read(t), "monitors") == 2 &&
         count(term_read(t), "monitored_by") == 0,
     "links that stand, monitors and watchers are listed");
  term_unref(t);
  term_writer_finish(&w);
}

int main(void) {
  still_init(&st, &(struct vm_config){.schedulers = 1});
  far1 = npid_make(st.far, 1), far2 = npid_make(st.far, 2);
  test_links();
  test_monitors();
  test_epochs();
  test_void_link();
  test_call();
  test_end();
  test_put();
  still_finish(&st);
  return tap_end();
}
