/* What each kind of signal does to a green thread: the rules of the Erlang reference manual, "Processes". */
#include "vm/process/signals.h"

#include "vm/process/budget.h"
#include "vm/process/facts.h"
#include "vm/process/info.h"
#include "vm/process/process.h"
#include "vm/process/ties.h"
#include "vm/sched/deliver.h"
#include "vm/sched/room.h"

/* Has the mailbox reached halves/2 times its bound?  The bound in bytes is smaller while the node is short of
 * memory, except for the end of the process. */
static bool holds_halves(const struct process *p, uint64_t halves) {
  const struct vm_config *c = p->isolate->config;
  const struct mailbox *m = &p->mailbox;
  bool all = halves > 2 || !p->isolate->scarce;
  uint64_t bytes = all ? c->mailbox_bytes : budget_mailbox(p->isolate->vm);
  return m->count * UINT64_C(2) >= c->mailbox_count * halves || m->bytes * UINT64_C(2) >= bytes * halves;
}

static void note_full(struct process *p, bool full) {
  p->full = full;
  if (full) {
    const struct vm_config *c = p->isolate->config;
    limit_refuse(c->limits, p->mailbox.count >= c->mailbox_count ? LIMIT_MESSAGES : LIMIT_MAILBOX);
  }
  vm_set_full(p->isolate->vm, p->pid, full);
}

void process_note_room(struct process *p) {
  if (p->full && !holds_halves(p, 1)) note_full(p, false);
  if (!p->full && holds_halves(p, 2)) note_full(p, true);
}

/* Does what follows when a message has been put into the mailbox. */
static inline void admit(struct process *p, const struct signal *s) {
  struct isolate *iso = p->isolate;
  iso->mail += (int64_t)signal_weight(s);
  facts_mailbox(p);
  if (!p->full && holds_halves(p, 2)) note_full(p, true);
  if (p->full && holds_halves(p, 4)) {
    process_outgrew(p, "its mailbox outgrew its bound");
    return;
  }
  atomic_store_explicit(&iso->messages, iso->messages + 1, memory_order_relaxed);
  if (p->state == PROCESS_RECEIVES || p->state == PROCESS_MATCHES) process_ready(p);
}

static void add_message(struct process *p, struct signal *s) {
  mailbox_push(&p->mailbox, s);
  admit(p, s);
}

static void add_urgent(struct process *p, struct signal *s) {
  mailbox_push_urgent(&p->mailbox, s);
  admit(p, s);
}

struct signal *process_take(struct process *p, struct signal **link) {
  struct signal *s = mailbox_take(&p->mailbox, link);
  p->isolate->mail -= (int64_t)signal_weight(s);
  if (p->full && !holds_halves(p, 1)) note_full(p, false);
  signal_free(p->taken);
  p->taken = s;
  return s;
}

/* Turns the signal into a message made of `term`. */
static void as_message(struct process *p, struct signal *s, struct term *term) {
  if (!term) {
    signal_free(s);
    return;
  }
  term_unref(s->term);
  s->term = term;
  add_message(p, s);
}

static struct term *reason_of(struct signal *s) {
  return s->term ? term_ref(s->term) : term_build("s", "normal");
}

/* Handles both kinds of exit signal: as a message when the process traps exits, else by ending the process.
 */
static void exit_with(struct process *p, struct signal *s, bool self) {
  if (p->trap_exit) {
    as_message(p, s, term_build("spt", "EXIT", s->from, s->term));
    return;
  }
  if (self || !term_is_word(s->term, "normal")) process_doom(p, reason_of(s));
  signal_free(s);
}

static void on_exit(struct process *p, struct signal *s) {
  if (term_is_word(s->term, "kill")) {
    process_doom(p, term_build("s", "killed"));
    signal_free(s);
  } else {
    exit_with(p, s, s->from == p->pid);
  }
}

/* Did the signal come by a lost connection, while the present link belongs to a later one? */
static bool is_late(const struct process *p, const struct signal *s) {
  return s->epoch && process_link_outlives(p, s->from, s->epoch);
}

/* Ignores the exit signal of a link that unlink has removed. */
static void on_link_exit(struct process *p, struct signal *s) {
  if (!is_late(p, s) && process_link_gone(p, s->from)) {
    exit_with(p, s, false);
  } else {
    signal_free(s);
  }
}

/* The LINK of a process that p waits for carries the ref of that call: should the reply be lost with the
 * connection, p still knows whose exit signal follows. */
static void on_link(struct process *p, struct signal *s) {
  if (process_link_by(p, s->from, s->epoch))
    isolate_signal(p->isolate, SIGNAL_LINK_EXIT, s->from, p->pid, NPID_NONE, term_build("s", "noproc"));
  else if (s->ref == p->call && s->ref != NPID_NONE &&
           npid_incarnation(s->from) == npid_incarnation(p->callee))
    p->child = s->from;
  signal_free(s);
}

static void on_unlink(struct process *p, struct signal *s) {
  if (!is_late(p, s)) process_unlink_by(p, s->from);
  isolate_signal(p->isolate, SIGNAL_UNLINK_ACK, s->from, p->pid, s->ref, NULL);
  signal_free(s);
}

static void on_unlink_ack(struct process *p, struct signal *s) {
  process_unlinked(p, s->from, s->ref);
  signal_free(s);
}

static void on_monitor(struct process *p, struct signal *s) {
  if (process_watch(p, s->ref, s->from))
    isolate_signal(p->isolate, SIGNAL_DOWN, s->from, p->pid, s->ref, term_build("s", "noproc"));
  signal_free(s);
}

static void on_demonitor(struct process *p, struct signal *s) {
  process_unwatch(p, s->ref);
  signal_free(s);
}

static void on_down(struct process *p, struct signal *s) {
  if (process_demonitor(p, s->ref) == NPID_NONE) {
    signal_free(s);
    return;
  }
  as_message(p, s, term_build("sppt", "DOWN", s->ref, s->from, s->term));
}

static void on_leader(struct process *p, struct signal *s) {
  struct term_reader r = term_read(s->term);
  npid leader;
  if (term_get_pid(&r, &leader)) p->leader = leader;
  facts_leader(p);
  signal_free(s);
}

/* Ends the wait of the process, if it waits, with an error; a reply that comes later is dropped. */
static void interrupt(struct process *p) {
  preempt_interrupt(&p->preemptible, p->L);
  p->call = NPID_NONE;
  if (p->callee_ref != NPID_NONE) process_demonitor(p, p->callee_ref);
  p->callee_ref = NPID_NONE;
  process_ready(p);
}

/* Calls to a green thread are answered on its behalf, without running it. */
static void on_call(struct process *p, struct signal *s) {
  struct term *answer;
  if (term_is_word(s->term, "flush") || term_is_word(s->term, "alive")) {
    answer = term_build("b", 1);
  } else if (term_is_word(s->term, "interrupt")) {
    interrupt(p);
    answer = term_build("b", 1);
  } else if (term_is_word(s->term, "info")) {
    answer = process_info(p, false);
  } else if (term_is_word(s->term, "process_info")) {
    answer = process_info(p, true);
  } else {
    answer = term_build("bss", 0, "usage", "a green thread does not answer this call");
  }
  if (s->ref != NPID_NONE) {
    isolate_signal(p->isolate, SIGNAL_REPLY, s->from, p->pid, s->ref, answer);
  } else {
    term_unref(answer);
  }
  signal_free(s);
}

/* A call that spawns with a monitor has set the monitor on the kernel that it asked.  When the reply brings
 * the new pid, the monitor moves to that pid, before any signal from the new process is handled.  When the
 * kernel has refused, the monitor is removed. */
static void settle_monitor(struct process *p, const struct term *reply) {
  struct term_reader r = term_read(reply);
  npid ref = p->callee_ref, pid;
  p->callee_ref = NPID_NONE;
  if (ref == NPID_NONE || process_demonitor(p, ref) == NPID_NONE) return;
  if (term_next(&r).tag == TERM_TRUE && term_get_pid(&r, &pid) && process_monitor(p, ref, pid, p->call_epoch))
    process_doom(p, NULL);
}

static void on_reply(struct process *p, struct signal *s) {
  if (s->ref == p->call && p->call != NPID_NONE) {
    settle_monitor(p, s->term);
    p->call = NPID_NONE;
    p->reply = s->term;
    s->term = NULL;
    if (p->state == PROCESS_CALLS) process_ready(p);
  }
  signal_free(s);
}

/* Wakes a sender that waits for room.  The sender calls vm_leave_room itself. */
static void on_room(struct process *p, struct signal *s) {
  if (p->state == PROCESS_SENDS) process_ready(p);
  signal_free(s);
}

static void (*const effects[SIGNAL_KINDS])(struct process *, struct signal *) = {
    [SIGNAL_URGENT] = add_urgent,
    [SIGNAL_MESSAGE] = add_message,
    [SIGNAL_EXIT] = on_exit,
    [SIGNAL_LINK_EXIT] = on_link_exit,
    [SIGNAL_LINK] = on_link,
    [SIGNAL_UNLINK] = on_unlink,
    [SIGNAL_UNLINK_ACK] = on_unlink_ack,
    [SIGNAL_MONITOR] = on_monitor,
    [SIGNAL_DEMONITOR] = on_demonitor,
    [SIGNAL_DOWN] = on_down,
    [SIGNAL_LEADER] = on_leader,
    [SIGNAL_CALL] = on_call,
    [SIGNAL_REPLY] = on_reply,
    [SIGNAL_ROOM] = on_room,
};

void process_signal(struct process *p, struct signal *s) {
  if (p->preemptible.end) { /* signals that come after the one that ends p find no process */
    vm_nobody(p->isolate->vm, s);
  } else if (effects[s->kind]) {
    effects[s->kind](p, s);
  } else {
    signal_free(s);
  }
}
