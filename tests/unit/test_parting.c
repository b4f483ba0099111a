/* The end of a process that has many ties, messages and alarms: other processes run in between, and nothing
 * is left.  One scheduler, and so one isolate. */
#include "vm/process/parting.h"

#include "still_vm.h"
#include "tap.h"

#include <stdlib.h>

static struct still st;

/* How often a process has got an answer from another one when `code` has told it (`other`) to stop.  Once all
 * wait, a node is lost whose process `far` is known to `code`. */
static int64_t turns_beside(const char *code) {
  still_clear(&st);
  npid far = npid_make(st.far, 1);
  char chunk[1000];
  snprintf(chunk, sizeof chunk,
           "local far, me, n = receive(), self(), 0\n"
           "local echo = spawn(function() while true do send(receive(), 'echo') end end)\n"
           "spawn(function() local other = me %s end)\n"
           "receive()\n"
           "repeat n = n + 1 send(echo, me) receive_match({'echo'}) until receive(0)\n"
           "send(group_leader(), n)",
           code);
  struct process *p = still_spawn(&st, chunk);
  vm_deliver(st.vm, signal_new(SIGNAL_MESSAGE, p->pid, st.tester, NPID_NONE, term_build("p", far)));
  still_run(&st);
  vm_node_down(st.vm, st.far, nodetab_part(st.nodes, st.far), "noconnection");
  still_run(&st);
  struct signal *s = still_take(&st, SIGNAL_MESSAGE);
  if (!s) return -1;
  struct term_reader r = term_read(s->term);
  struct term_value v = term_next(&r);
  signal_free(s);
  return v.tag == TERM_INT ? v.i : -1;
}

enum { LEAST = 10 };

static void test_turns(void) {
  int64_t n = turns_beside("local p = spawn(function() receive() end) for _ = 1, 5000 do monitor(p) end "
                           "send(other, 'begin') send(p, 'end') for _ = 1, 5000 do receive() end "
                           "send(other, 'stop')");
  ok(n >= LEAST, "a process runs between the 5,000 DOWNs of another (%lld times)", (long long)n);
  n = turns_beside(
      "local w = self() local p = spawn(function() local q = spawn(function() receive() end) "
      "for _ = 1, 5000 do monitor(q) end send(w, 'ready') receive() send(q, 'end') end) receive() "
      "for _ = 1, 5000 do monitor(p) end "
      "send(other, 'begin') send(p, 'end') for _ = 1, 5000 do receive() end send(other, 'stop')");
  ok(n >= LEAST, "and beside the end of one that also watches 5,000 times (%lld times)", (long long)n);
}

/* Between the ties of a lost node, too; those by the next connection do not fire. */
static void test_loss(void) {
  int64_t n = turns_beside("for _ = 1, 20000 do monitor(far) end receive() send(other, 'begin') "
                           "for _ = 2, 20000 do receive() end send(other, 'stop')");
  ok(n >= LEAST, "a process runs between the 20,000 DOWNs of a lost node (%lld times)", (long long)n);
  n = turns_beside("for _ = 1, 20000 do monitor(far) end receive() send(other, 'begin') "
                   "trap_exit(true) link(far) local late = monitor(far) "
                   "for _ = 2, 20000 do local d, ref = receive() assert(d == 'DOWN' and ref ~= late) end "
                   "assert(not receive(0)) send(other, 'stop')");
  ok(n >= LEAST, "and a link and a monitor made meanwhile, by the next connection, stay (%lld)",
     (long long)n);
  n = turns_beside("local p = spawn(function() for _ = 1, 20000 do monitor(far) end receive() "
                   "  send(other, 'begin') exit('enough') end) "
                   "monitor(p) receive() send(other, 'stop')");
  ok(n >= 0, "a process may end while its ties fire");
}

/* Ends the process, which is waiting, and makes the first step of its parting only. */
static void kill_now(struct process *p) {
  process_doom(p, term_build("s", "killed"));
  p->isolate->ready = (struct queue){0};
  p->state = PROCESS_RUNNING;
  process_run(p);
}

static void test_nothing_left(void) {
  struct process *p = still_spawn(
      &st, "for i = 1, 1000 do send(self(), i) send_after(60000, self(), i) end receive_match({0})");
  struct isolate *iso = p->isolate;
  npid pid = p->pid;
  int live = atomic_load(&iso->live);
  ok(iso->alarms.len == 1000 && p->mailbox.count == 1000, "a process with a thousand messages and alarms");
  kill_now(p);
  ok(iso->partings.first && !isolate_find(iso, pid), "is gone at once, with something left to do");
  ok(atomic_load(&iso->live) == live, "and counts until that is done");
  isolate_push(iso, signal_new(SIGNAL_MONITOR, pid, st.tester, vm_ref(st.vm), NULL));
  still_run(&st);
  struct signal *s = still_take(&st, SIGNAL_DOWN);
  ok(s && term_is_word(s->term, "noproc"), "whoever watches it meanwhile is told that it is gone");
  signal_free(s);
  ok(!iso->partings.first && iso->alarms.len == 0 && iso->alarm_timers.len == 0, "then nothing is left");
  ok(atomic_load(&iso->live) == live - 1, "and it does not count");
}

/* A vm that is freed meanwhile leaks nothing (AddressSanitizer). */
static void test_freed(void) {
  struct process *p = still_spawn(&st, "for i = 1, 1000 do monitor(group_leader()) send(self(), i) "
                                       "send_after(60000, self(), i) end receive_match({0})");
  kill_now(p);
  ok(p->isolate->partings.first, "a vm may be freed with something left to do");
}

int main(void) {
  struct vm_config limits = {.schedulers = 1, .heap_max = (size_t)64 << 20};
  still_init(&st, &limits);
  test_turns();
  test_loss();
  test_nothing_left();
  test_freed();
  still_finish(&st);
  return tap_end();
}
