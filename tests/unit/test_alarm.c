/* Messages that are sent later: in the order in which they are due; which process may cancel which timer. */
#include "vm/process/alarm.h"

#include "still_vm.h"
#include "tap.h"
#include "base/clock.h"

#include <stdlib.h>

static const int64_t SECOND = 1000000000;

static struct still st;
static struct isolate *iso;
static struct process *setter;

static npid set(int64_t at, npid to, const char *name, int64_t value) {
  npid ref = isolate_ref(iso);
  if (alarm_set(iso, ref, at, setter->pid, to, name, term_build("i", value))) abort();
  return ref;
}

/* Fires the messages that are due at `now`. */
static void fire(int64_t now) {
  for (struct timer *t; (t = timers_due(&iso->alarm_timers, now));)
    if (t->alarm) alarm_fire(iso, t);
}

/* The value of the next message to the tester, or -1. */
static int64_t message(void) {
  struct signal *s = still_take(&st, SIGNAL_MESSAGE);
  struct term_reader r = term_read(s ? s->term : NULL);
  int64_t value = s && s->from == setter->pid ? term_next(&r).i : -1;
  signal_free(s);
  return value;
}

static void test_order(void) {
  int64_t now = clock_ns() + 1000 * SECOND;
  set(now + 3, st.tester, NULL, 3);
  set(now + 1, st.tester, NULL, 1);
  npid gone = set(now + 2, st.tester, NULL, 2);
  set(now + 9, st.tester, NULL, 9);
  ok(alarm_owner(st.vm, gone) == iso, "whoever has an alarm is known");
  int64_t left = alarm_cancel(iso, gone);
  ok(left > 900 * SECOND && left <= 1000 * SECOND, "cancelling says what was left");
  ok(alarm_cancel(iso, gone) == -1 && !alarm_is_here(iso, gone), "once: then there is no such alarm");
  fire(now);
  ok(message() == -1, "before its time none is sent");
  fire(now + 5);
  int64_t first = message(), second = message();
  ok(first == 1 && second == 3 && message() == -1, "those that are due are sent, the earliest first");
  fire(now + 9);
  ok(message() == 9 && iso->alarms.len == 0 && iso->alarm_timers.len == 0, "and the late one in its time");
  npid late = set(clock_ns() - SECOND, st.tester, NULL, 1);
  ok(alarm_cancel(iso, late) == 0, "one whose time has passed, but that was not sent, has nothing left");
}

static void test_names(void) {
  int64_t now = clock_ns() + 1000 * SECOND;
  set(now, NPID_NONE, "name", 5);
  set(now, NPID_NONE, "nobody", 6);
  if (names_register(st.names, "name", st.tester, 0)) abort();
  fire(now);
  int64_t got = message();
  ok(got == 5 && message() == -1, "a name is looked up when the time has come");
}

static void test_ends(void) {
  int64_t now = clock_ns() + 1000 * SECOND;
  struct process *p = still_spawn(&st, "receive()");
  npid to_dead = set(now, p->pid, NULL, 1), by_dead = isolate_ref(iso), to_self = isolate_ref(iso);
  if (alarm_set(iso, by_dead, now, p->pid, st.tester, NULL, term_build("i", INT64_C(7)))) abort();
  if (alarm_set(iso, to_self, now, p->pid, p->pid, NULL, term_build("i", INT64_C(8)))) abort();
  ok(alarm_owner(st.vm, to_self) == iso && p->isolate == iso, "a process may set one for itself");
  npid pid = p->pid;
  process_doom(p, term_build("s", "normal"));
  sched_wake(&st.vm->sched, &iso->runnable);
  still_run(&st);
  ok(!vm_alive(st.vm, pid) && !alarm_is_here(iso, to_self), "as it ends that one is forgotten");
  ok(alarm_is_here(iso, by_dead), "what it has set for another is not");
  ok(alarm_cancel(iso, to_dead) == -1 && !alarm_is_here(iso, to_dead),
     "one to a process that has ended is void");
  for (struct timer *t; (t = timers_due(&iso->alarm_timers, now));) alarm_fire(iso, t);
  struct signal *s = still_take(&st, SIGNAL_MESSAGE);
  ok(s && s->from == pid, "and goes off all the same");
  signal_free(s);
}

/* Removes a timer from each place in the list of a process: the other timers stay in the list. */
static void test_own(void) {
  int64_t now = clock_ns() + 1000 * SECOND;
  bool good = true;
  for (int gone = 0; gone < 3; gone++) {
    struct process *p = still_spawn(&st, "receive()");
    npid ref[3];
    for (int i = 0; i < 3; i++) {
      ref[i] = isolate_ref(iso);
      if (alarm_set(iso, ref[i], now, p->pid, p->pid, NULL, NULL)) abort();
    }
    good = good && alarm_cancel(iso, ref[gone]) > 0;
    good = good && alarm_cancel(iso, ref[(gone + 2) % 3]) > 0;
    good = good && alarm_drop(iso, &p->alarms, 9) == 1;
    for (int i = 0; i < 3; i++) good = good && !alarm_is_here(iso, ref[i]);
  }
  struct process *p = still_spawn(&st, "receive()");
  npid older = isolate_ref(iso), newer = isolate_ref(iso);
  if (alarm_set(iso, older, now, p->pid, p->pid, NULL, NULL)) abort();
  if (alarm_set(iso, newer, now, p->pid, p->pid, NULL, NULL)) abort();
  good = good && alarm_cancel(iso, newer) > 0 && alarm_cancel(iso, older) > 0 && !p->alarms;
  ok(good && iso->alarms.len == 0 && iso->alarm_timers.len == 0,
     "a process drops all that it has set for itself");
}

static void test_charge(void) {
  int64_t before = process_memory(setter), now = clock_ns() + 1000 * SECOND;
  npid a = set(now, st.tester, NULL, 1);
  int64_t small = process_memory(setter) - before;
  npid b = set(now, NPID_NONE, "a-long-name", 1);
  int64_t with_name = process_memory(setter) - before - small;
  ok(small > 0 && with_name == small + 11, "who sets an alarm answers for what it takes");
  alarm_cancel(iso, a);
  fire(now);
  ok(process_memory(setter) == before && alarm_cancel(iso, b) == -1, "until it is cancelled, or sent");
}

static bool call(npid ref, const char *what, bool *found, int64_t *left) {
  vm_signal(st.vm, SIGNAL_CALL, ref, st.tester, vm_ref(st.vm), term_build("s", what));
  still_run(&st);
  struct signal *s = still_take(&st, SIGNAL_REPLY);
  struct term_reader r = term_read(s ? s->term : NULL);
  *found = term_next(&r).tag == TERM_TRUE;
  *left = term_next(&r).i;
  bool good = s && s->from == ref;
  signal_free(s);
  return good;
}

static void test_call(void) {
  npid ref = set(clock_ns() + 1000 * SECOND, st.tester, NULL, 1);
  bool found;
  int64_t left;
  ok(call(ref, "nonsense", &found, &left) && !found && alarm_is_here(iso, ref), "another call does nothing");
  ok(call(ref, "cancel_timer", &found, &left) && found && left > 900 * SECOND,
     "any process may cancel one by a call");
  ok(call(ref, "cancel_timer", &found, &left) && !found, "once");
}

int main(void) {
  still_init(&st, &(struct vm_config){.schedulers = 1});
  setter = still_spawn(&st, "receive()");
  iso = setter->isolate;
  test_order();
  test_names();
  test_ends();
  test_own();
  test_charge();
  test_call();
  set(clock_ns() + 1000 * SECOND, st.tester, NULL, 1); /* the vm frees the timers that remain */
  still_finish(&st);
  return tap_end();
}
