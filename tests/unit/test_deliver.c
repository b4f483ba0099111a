/* Delivery: where a signal goes, the answer when its receiver does not exist, and the order of one sender's
 * signals. */
#include "vm/sched/deliver.h"

#include "still_vm.h"
#include "tap.h"

#include <pthread.h>
#include <stdlib.h>

static struct still st;

/* Sends a signal from the tester to a process that never existed; returns the answer. */
static struct signal *answer_of_nobody(enum signal_kind kind, npid ref, enum signal_kind answer) {
  vm_signal(st.vm, kind, npid_make(0, 4000), st.tester, ref, NULL);
  return still_take(&st, answer);
}

static bool is_noproc(struct signal *s) {
  return s && s->from == npid_make(0, 4000) && term_is_word(s->term, "noproc");
}

static void test_nobody(void) {
  npid ref = vm_ref(st.vm);
  struct signal *s = answer_of_nobody(SIGNAL_MONITOR, ref, SIGNAL_DOWN);
  ok(is_noproc(s) && s->ref == ref, "a monitor on nobody gets DOWN noproc with its ref");
  signal_free(s);
  s = answer_of_nobody(SIGNAL_LINK, NPID_NONE, SIGNAL_LINK_EXIT);
  ok(is_noproc(s), "a link to nobody gets LINK_EXIT noproc");
  signal_free(s);
  s = answer_of_nobody(SIGNAL_UNLINK, ref, SIGNAL_UNLINK_ACK);
  ok(s && s->ref == ref, "an unlink of nobody is acknowledged");
  signal_free(s);
  s = answer_of_nobody(SIGNAL_CALL, ref, SIGNAL_REPLY);
  struct term_reader r = term_read(s ? s->term : NULL);
  struct term_value good = term_next(&r), code = term_next(&r);
  ok(s && s->ref == ref && good.tag == TERM_FALSE && code.tag == TERM_STR && code.len == 10 &&
         memcmp(code.s, "no_process", 10) == 0,
     "a call of nobody is refused with no_process");
  signal_free(s);
  static const enum signal_kind silent[] = {SIGNAL_MESSAGE, SIGNAL_EXIT,  SIGNAL_UNLINK_ACK, SIGNAL_DEMONITOR,
                                            SIGNAL_DOWN,    SIGNAL_REPLY, SIGNAL_LINK_EXIT,  SIGNAL_ROOM};
  for (size_t i = 0; i < sizeof silent / sizeof *silent; i++)
    vm_signal(st.vm, silent[i], npid_make(0, 4000), st.tester, ref, NULL);
  vm_signal(st.vm, SIGNAL_CALL, npid_make(0, 4000), st.tester, NPID_NONE, NULL);
  ok(!vm_host_take(st.vm), "no other signal to nobody gets an answer, nor does a call without a ref");
}

static void test_host(void) {
  still_clear(&st);
  int before = st.wakes;
  vm_signal(st.vm, SIGNAL_MESSAGE, st.tester, NPID_NONE, NPID_NONE, term_build("i", INT64_C(1)));
  vm_signal(st.vm, SIGNAL_CALL, NPID_KERNEL, NPID_NONE, NPID_NONE, NULL);
  vm_signal(st.vm, SIGNAL_MESSAGE, npid_make(st.far, 5), NPID_NONE, NPID_NONE, NULL);
  ok(st.wakes == before + 1, "the host is woken once for what comes before it takes its inbox");
  struct signal *s = vm_host_take(st.vm);
  ok(s && s->to == st.tester && s->next && s->next->to == NPID_KERNEL && s->next->next &&
         s->next->next->to == npid_make(st.far, 5),
     "its process's, the kernel's and another node's signals come in the order in which they were sent");
  ok(s && s->epoch == 0 && s->next && s->next->next &&
         s->next->next->epoch == nodetab_epoch(st.nodes, st.far),
     "one to another node belongs to the present connection");
  for (struct signal *next; s; s = next) next = s->next, signal_free(s);
  struct signal *old = signal_new(SIGNAL_MESSAGE, npid_make(st.far, 5), NPID_NONE, NPID_NONE, NULL);
  old->epoch = 77;
  vm_deliver(st.vm, old);
  s = vm_host_take(st.vm);
  ok(s && s->epoch == 77 && st.wakes == before + 2, "one that belongs to a connection keeps it");
  signal_free(s);
}

static void test_threads(void) {
  struct process *p = still_spawn(&st, "receive()");
  npid pid = p->pid;
  ok(vm_alive(st.vm, pid) && vm_alive(st.vm, st.tester), "green threads and the host's processes are alive");
  ok(!vm_alive(st.vm, npid_as_ref(pid)) && !vm_alive(st.vm, npid_make(st.far, npid_number(pid))),
     "a reference and another node's pid are not");
  still_clear(&st);
  vm_signal(st.vm, SIGNAL_MESSAGE, pid, st.tester, NPID_NONE, term_build("i", INT64_C(1)));
  ok(atomic_load(&p->isolate->runnable.state) == RUNNABLE_QUEUED && !vm_host_take(st.vm),
     "a signal to a green thread wakes its isolate, and not the host");
  still_run(&st);
  ok(!vm_alive(st.vm, pid), "a process that has ended is not alive");
}

enum { SENDERS = 4, EACH = 20000 };

static void *sender(void *data) {
  for (int64_t i = 0; i < EACH; i++)
    vm_signal(st.vm, SIGNAL_MESSAGE, st.tester, npid_make(st.far, (uintptr_t)data), NPID_NONE,
              term_build("i", i));
  return NULL;
}

/* Four threads send while the test receives: the signals of each sender keep their order; those of two
 * senders have none. */
static void test_order(void) {
  pthread_t threads[SENDERS];
  int64_t next[SENDERS] = {0}, total = 0;
  bool ordered = true;
  still_clear(&st);
  for (uintptr_t i = 0; i < SENDERS; i++)
    if (pthread_create(&threads[i], NULL, sender, (void *)i)) abort();
  while (total < SENDERS * EACH && ordered)
    for (struct signal *s = vm_host_take(st.vm), *after; s; s = after, total++) {
      struct term_reader r = term_read(s->term);
      ordered = ordered && term_next(&r).i == next[npid_number(s->from)]++;
      after = s->next;
      signal_free(s);
    }
  for (int i = 0; i < SENDERS; i++) pthread_join(threads[i], NULL);
  ok(ordered && total == SENDERS * EACH, "signals of one sender to one receiver keep their order");
}

static void test_refs(void) {
  npid a = vm_ref(st.vm), b = vm_ref(st.vm);
  ok(a != b && npid_is_ref(a) && npid_is_local(a), "every reference is another one");
  vm_signal(st.vm, SIGNAL_CALL, a, st.tester, b, term_build("s", "cancel_timer"));
  struct signal *s = still_take(&st, SIGNAL_REPLY);
  ok(s && s->ref == b, "a call of a reference that nothing is kept under is answered at once");
  signal_free(s);
}

/* --- wake-ups ------------------------------------------------------------------------------------------- */

static npid last; /* gets a message while its isolate handles signals that came before */

/* Called as the first of them is answered: the message arrives, and the slice of the isolate is over. */
static void on_answer(void *data) {
  npid to = last;
  (void)data;
  last = NPID_NONE;
  if (to == NPID_NONE) return;
  atomic_fetch_add(&st.vm->sched.scheduler[0].ticks, 1);
  vm_signal(st.vm, SIGNAL_MESSAGE, to, st.tester, NPID_NONE, term_build("i", INT64_C(1)));
}

/* However many signals that wake nobody are left when a slice ends. */
static void test_wakes(void) {
  void (*wake)(void *data) = st.vm->config.wake;
  int missed = 0;
  st.vm->config.wake = on_answer;
  for (int n = 1; n <= 600; n++) {
    npid pid = still_spawn(&st, "receive()")->pid;
    still_clear(&st);
    last = pid;
    vm_signal(st.vm, SIGNAL_UNLINK, pid, st.tester, vm_ref(st.vm), NULL);
    for (int i = 1; i < n; i++) vm_signal(st.vm, SIGNAL_DEMONITOR, pid, st.tester, vm_ref(st.vm), NULL);
    still_run(&st);
    missed += vm_alive(st.vm, pid);
  }
  ok(!missed, "a message that arrives at the end of a slice wakes its isolate (%d of 600 did not)", missed);
  st.vm->config.wake = wake;
}

/* --- the host sends at once ----------------------------------------------------------------------------- */

static struct {
  bool takes;
  int calls;
  struct signal *last;     /* taken by the last call */
  const struct process *p; /* or NULL; at that call, */
  bool alone;              /* no other scheduler could run its isolate */
} direct;

static void free_all(struct signal *s) {
  for (struct signal *next; s; s = next) {
    next = s->next;
    signal_free(s);
  }
}

static bool on_direct(void *data, struct signal *s) {
  (void)data;
  direct.calls++;
  if (direct.p) direct.alone = atomic_load(&direct.p->isolate->runnable.state) == RUNNABLE_RUNNING;
  if (!direct.takes) return false;
  free_all(direct.last);
  direct.last = s;
  return true;
}

static void begin_turn(bool takes) {
  still_clear(&st);
  st.vm->sched.scheduler[0].lingered = false;
  direct.calls = 0;
  direct.takes = takes;
}

static void send_far(enum signal_kind kind, uint64_t to) {
  vm_signal(st.vm, kind, npid_make(st.far, to), NPID_NONE, NPID_NONE, NULL);
}

static bool are(const struct signal *s, uint64_t first, uint64_t second) {
  bool good = s && npid_number(s->to) == first;
  return good && (second ? s->next && npid_number(s->next->to) == second && !s->next->next : !s->next);
}

/* Are these the signals in the host's inbox? */
static bool took(uint64_t first, uint64_t second) {
  struct signal *s = vm_host_take(st.vm);
  bool good = are(s, first, second);
  free_all(s);
  return good;
}

static void test_direct(void) {
  struct scheduler *self = &st.vm->sched.scheduler[0];
  st.vm->config.direct = on_direct;
  begin_turn(true);
  send_far(SIGNAL_MESSAGE, 5);
  ok(!direct.calls && took(5, 0), "a thread that is no scheduler has the host send its signals");
  pthread_setspecific(st.vm->sched.self, self);
  send_far(SIGNAL_MESSAGE, 6);
  ok(direct.calls == 1 && are(direct.last, 6, 0) && !vm_host_take(st.vm), "a scheduler sends one itself,");
  ok(direct.last->epoch == nodetab_epoch(st.nodes, st.far), "for the present connection,");
  send_far(SIGNAL_MESSAGE, 7);
  ok(direct.calls == 1 && took(7, 0), "but only one in a turn");
  begin_turn(true);
  vm_signal(st.vm, SIGNAL_CALL, NPID_KERNEL, NPID_NONE, NPID_NONE, NULL);
  atomic_store(&self->woken.len, 1);
  send_far(SIGNAL_MESSAGE, 8);
  atomic_store(&self->woken.len, 0);
  ok(!direct.calls && took(0, 8), "and none for the node itself, nor while others wait for the core");
  begin_turn(false);
  int before = st.wakes;
  send_far(SIGNAL_MESSAGE, 9);
  ok(direct.calls == 1 && st.wakes == before + 1 && took(9, 0),
     "what the host cannot send at once goes into its inbox");
  begin_turn(true);
  send_far(SIGNAL_REPLY, 10);
  ok(!direct.calls && !vm_host_take(st.vm), "a reply waits,");
  send_far(SIGNAL_MESSAGE, 11);
  ok(direct.calls == 1 && are(direct.last, 10, 11), "and goes with the next signal,");
  begin_turn(true);
  send_far(SIGNAL_REPLY, 12);
  vm_end_turn(self);
  vm_end_turn(self);
  ok(direct.calls == 1 && are(direct.last, 12, 0), "or at the end of the turn,");
  begin_turn(false);
  send_far(SIGNAL_REPLY, 13);
  send_far(SIGNAL_MESSAGE, 14);
  ok(direct.calls == 1 && took(13, 14), "or before the next signal into the inbox");
  begin_turn(true);
  send_far(SIGNAL_LINK, 17);
  send_far(SIGNAL_REPLY, 18);
  ok(direct.calls == 1 && are(direct.last, 17, 18), "a link and the reply behind it go together");
  begin_turn(true);
  send_far(SIGNAL_MESSAGE, 15);
  send_far(SIGNAL_REPLY, 16);
  ok(direct.calls == 1 && took(16, 0), "a reply that comes second does not wait");
  pthread_setspecific(st.vm->sched.self, NULL);
  st.vm->config.direct = NULL;
  free_all(direct.last);
}

/* Replaces vm_config.wake of still_vm: the slice is over then. */
static void tick(void *data) {
  (void)data;
  atomic_fetch_add(&st.vm->sched.scheduler[0].ticks, 1);
}

/* A process answers a call of another node, and its turn ends. */
static bool answers_alone(uint64_t from) {
  direct.alone = false;
  begin_turn(true);
  vm_signal(st.vm, SIGNAL_CALL, direct.p->pid, npid_make(st.far, from), vm_ref(st.vm),
            term_build("s", "alive"));
  still_run(&st);
  return direct.calls == 1 && are(direct.last, from, 0) && direct.alone;
}

static void test_end_of_turn(void) {
  void (*wake)(void *data) = st.vm->config.wake;
  direct.p = still_spawn(&st, "receive() puts('x') receive()");
  direct.last = NULL;
  st.vm->config.direct = on_direct;
  pthread_setspecific(st.vm->sched.self, &st.vm->sched.scheduler[0]);
  ok(answers_alone(17),
     "a reply that waits is sent before another scheduler may run the isolate that rests,");
  st.vm->config.wake = tick;
  vm_signal(st.vm, SIGNAL_MESSAGE, direct.p->pid, st.tester, NPID_NONE, term_build("i", INT64_C(1)));
  ok(answers_alone(18), "or whose slice is over");
  st.vm->config.wake = wake;
  pthread_setspecific(st.vm->sched.self, NULL);
  st.vm->config.direct = NULL;
  vm_signal(st.vm, SIGNAL_MESSAGE, direct.p->pid, st.tester, NPID_NONE, term_build("i", INT64_C(1)));
  still_run(&st);
  free_all(direct.last);
}

/* Replaces vm_config.wake of still_vm, which counts without a lock, because several threads of this test call
 * it. */
static void nothing(void *data) {
  (void)data;
}

int main(void) {
  still_init(&st, &(struct vm_config){.schedulers = 2});
  test_nobody();
  test_host();
  test_threads();
  test_refs();
  test_wakes();
  test_direct();
  test_end_of_turn();
  st.vm->config.wake = nothing;
  test_order();
  still_finish(&st);
  return tap_end();
}
