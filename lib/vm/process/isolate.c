/* Invariant: L is NULL from the making of the isolate, or from its last closing, until the first order for a
 * process arrives.  An isolate closes when it is shut, `live` is 0 and it has no timer.  `live` is increased
 * before an order is pushed into the inbox, so no order is in the inbox when the isolate closes.  A shut
 * isolate may be opened again; placement_retire decides under the lock of the placement which of the two
 * comes first. */
#include "vm/process/isolate.h"

#include "base/clock.h"
#include "vm/process/alarm.h"
#include "vm/process/budget.h"
#include "vm/process/facts.h"
#include "vm/process/multicast.h"
#include "vm/process/parting.h"
#include "vm/process/placement.h"
#include "vm/process/process.h"
#include "vm/process/signals.h"
#include "vm/process/spawn.h"
#include "vm/process/tidy.h"
#include "vm/process/ties.h"
#include "vm/sched/deliver.h"
#include "vm/sched/preempt.h"
#include "vm/sched/room.h"
#include "vm/sched/state.h"

#include <lualib.h>
#include <stddef.h>
#include <stdlib.h>

/* --- life --- */

struct isolate *isolate_new(struct vm *vm, const struct isolate_hooks *hooks) {
  struct isolate *iso = calloc(1, sizeof *iso);
  if (!iso) return NULL;
  iso->vm = vm;
  iso->config = &vm->config;
  iso->hooks = hooks;
  iso->paused.owner = NPID_NONE;
  iso->loss.ties.pid = NPID_NONE;
  return iso;
}

void isolate_shut(struct isolate *iso) {
  atomic_store(&iso->open, false);
  sched_wake(&iso->vm->sched, &iso->runnable);
}

static bool open_state(struct isolate *iso) {
  heap_init(&iso->heap);
  iso->L = lua_newstate(heap_alloc, &iso->heap);
  if (!iso->L) return false;
  *(struct process **)lua_getextraspace(iso->L) = NULL;
  if (iso->hooks->open(iso->L, iso)) return true;
  lua_close(iso->L);
  heap_finish(&iso->heap);
  iso->L = NULL;
  return false;
}

static void close_state(struct isolate *iso) {
  if (!iso->L) return;
  /* Processes live here only when the vm is being freed: they are freed without a signal to anybody. */
  for (uint32_t i = 0; i < iso->slots_len; i++) process_free(iso->slots[i]);
  free(iso->slots);
  iso->slots = NULL;
  iso->slots_len = iso->slots_cap = iso->holes = iso->hole = iso->pooled = 0;
  iso->tidy = (struct tidy){0};
  iso->pool = NULL;
  iso->ready = iso->preempted = iso->low = (struct queue){NULL, NULL, 0};
  parting_drop_all(iso);
  ties_loss_next(&iso->loss.ties);
  iso->loss.slot = 0;
  alarm_drop_all(iso);
  map_finish(&iso->aliases);
  timers_finish(&iso->timers);
  timers_finish(&iso->alarm_timers);
  facts_close(iso);
  iso->hooks->close(iso);
  multicast_close(iso);
  term_writer_finish(&iso->writer);
  term_writer_finish(&iso->paused.writer);
  buf_finish(&iso->dump);
  lua_close(iso->L);
  iso->L = NULL;
  heap_finish(&iso->heap);
  ptab_give(&iso->vm->ptab, iso->given, iso->given_len);
  ptab_give(&iso->vm->ptab, iso->numbers, iso->numbers_len);
  iso->given_len = iso->numbers_len = 0;
  quota_return(&iso->timers_left, iso->config->limits, LIMIT_TIMERS);
  quota_return(&iso->ties_left, iso->config->limits, LIMIT_TIES);
}

void isolate_free(struct isolate *iso) {
  close_state(iso);
  signals_free(iso->incoming);
  signals_free(inbox_take(&iso->runnable.inbox));
  map_finish(&iso->ref_blocks);
  free(iso);
}

/* Closes an isolate that is shut when its last process has ended, and offers it for newcomers while few are
 * left. */
static void leave_shut(struct isolate *iso) {
  struct placement *pl = iso->vm->placement;
  if (!iso->L || atomic_load(&iso->open)) return;
  if (atomic_load(&iso->live) > 0 || iso->alarm_timers.len > 0) {
    placement_offer(pl, iso);
  } else if (placement_retire(pl, iso)) {
    close_state(iso);
    placement_spare(pl, iso);
  }
}

/* --- numbers of processes and references --- */

enum { FEW_NUMBERS = 1 << 18 };

/* A node with a small bound takes and gives single numbers, so that no isolate keeps what another lacks. */
static uint32_t batch_of(const struct isolate *iso) {
  return iso->vm->ptab.max < FEW_NUMBERS ? 1 : ISOLATE_BATCH;
}

uint64_t isolate_take_number(struct isolate *iso) {
  if (iso->numbers_len == 0) {
    uint64_t fresh[ISOLATE_BATCH];
    uint32_t n = (uint32_t)ptab_take(&iso->vm->ptab, fresh, batch_of(iso));
    for (uint32_t i = 0; i < n; i++) iso->numbers[i] = fresh[n - 1 - i];
    iso->numbers_len = n;
    if (n == 0) limit_refuse(iso->config->limits, LIMIT_PROCESSES);
  }
  return iso->numbers_len ? iso->numbers[--iso->numbers_len] : 0;
}

void isolate_give_number(struct isolate *iso, uint64_t number) {
  iso->given[iso->given_len++] = number;
  if (iso->given_len < batch_of(iso)) return;
  ptab_give(&iso->vm->ptab, iso->given, iso->given_len);
  iso->given_len = 0;
}

/* The present block is over: its claim stays while it has addresses.  (Without memory to count them it stays
 * for good, which costs an entry of the map of claims.) */
static void leave_ref_block(struct isolate *iso) {
  uint64_t block = refs_block(iso->ref_next - 1);
  if (iso->ref_claimed && !iso->ref_uses) refs_release(&iso->vm->refs, block);
  if (iso->ref_uses && map_put_id(&iso->ref_blocks, block, (void *)(intptr_t)iso->ref_uses)) {
  }
  iso->ref_claimed = false;
  iso->ref_uses = 0;
}

npid isolate_ref(struct isolate *iso) {
  if (iso->ref_next == iso->ref_end) {
    if (iso->ref_end) leave_ref_block(iso);
    iso->ref_next = refs_take(&iso->vm->refs);
    iso->ref_end = iso->ref_next + REFS_BLOCK;
  }
  return npid_as_ref(npid_make(0, iso->ref_next++));
}

static bool is_present_block(const struct isolate *iso, npid ref) {
  return refs_block(ref) == (iso->ref_end - 1) / REFS_BLOCK;
}

int isolate_add_address(struct isolate *iso, npid ref) {
  uint64_t block = refs_block(ref);
  if (is_present_block(iso, ref)) {
    if (!iso->ref_claimed && refs_claim(&iso->vm->refs, block, &iso->runnable)) return ERR_NOMEM;
    iso->ref_claimed = true;
    iso->ref_uses++;
    return 0;
  }
  intptr_t uses = (intptr_t)map_get_id(&iso->ref_blocks, block);
  if (map_put_id(&iso->ref_blocks, block, (void *)(uses + 1))) return ERR_NOMEM;
  if (uses || !refs_claim(&iso->vm->refs, block, &iso->runnable)) return 0;
  map_remove_id(&iso->ref_blocks, block);
  return ERR_NOMEM;
}

void isolate_drop_address(struct isolate *iso, npid ref) {
  uint64_t block = refs_block(ref);
  if (is_present_block(iso, ref)) {
    iso->ref_uses--;
    return;
  }
  intptr_t uses = (intptr_t)map_remove_id(&iso->ref_blocks, block);
  if (uses > 1 && !map_put_id(&iso->ref_blocks, block, (void *)(uses - 1))) return;
  if (uses) refs_release(&iso->vm->refs, block);
}

/* --- signals --- */

struct process *isolate_find(struct isolate *iso, npid pid) {
  if (!npid_is_local(pid) || npid_is_ref(pid)) return NULL;
  struct ptab_slot *slot = ptab_find(&iso->vm->ptab, npid_number(pid));
  if (!slot || atomic_load_explicit(&slot->owner, memory_order_relaxed) != &iso->runnable) return NULL;
  return atomic_load_explicit(&slot->object, memory_order_relaxed);
}

void isolate_push(struct isolate *iso, struct signal *s) {
  if (inbox_push(&iso->runnable.inbox, s)) sched_wake(&iso->vm->sched, &iso->runnable);
}

/* Handles a signal to a reference of this isolate: a message to an alias, or a call to an alarm. */
static void receive_at_ref(struct isolate *iso, struct signal *s) {
  struct process *p = s->kind == SIGNAL_MESSAGE ? process_take_alias(iso, s->to) : NULL;
  if (p) {
    s->to = p->pid;
    process_signal(p, s);
  } else {
    alarm_call(iso, s);
  }
}

void isolate_deliver(struct isolate *iso, struct signal *s) {
  struct process *p = isolate_find(iso, s->to);
  if (p) {
    process_signal(p, s);
  } else if (npid_is_ref(s->to) && map_get_id(&iso->aliases, s->to)) {
    receive_at_ref(iso, s);
  } else {
    vm_deliver(iso->vm, s);
  }
}

void isolate_signal(struct isolate *iso, enum signal_kind kind, npid to, npid from, npid ref,
                    struct term *term) {
  struct signal *s = signal_new(kind, to, from, ref, term);
  if (s) {
    isolate_deliver(iso, s);
  } else {
    term_unref(term);
  }
}

uint32_t isolate_epoch(const struct isolate *iso, npid to) {
  return nodetab_epoch(iso->config->nodes, npid_incarnation(to));
}

int isolate_tie(struct isolate *iso, enum signal_kind kind, npid to, npid from, npid ref, uint32_t epoch) {
  struct signal *s = signal_new(kind, to, from, ref, NULL);
  if (!s) return ERR_NOMEM;
  s->epoch = epoch;
  isolate_deliver(iso, s);
  return 0;
}

/* Fires up to *left ties of a lost node, and takes them off *left; false: there are more.  A process that has
 * got the slot of an ended one meanwhile has no tie of the lost connection. */
static bool node_down(struct isolate *iso, const struct signal *s, int *left) {
  struct ties_loss *l = &iso->loss.ties;
  l->incarnation = npid_incarnation(s->from);
  l->epoch = s->epoch;
  l->reason = s->term;
  for (; iso->loss.slot < iso->slots_len; iso->loss.slot++, ties_loss_next(l)) {
    struct process *p = iso->slots[iso->loss.slot];
    if (!p || !p->alive || (l->pid != NPID_NONE && l->pid != p->pid)) continue;
    int done = process_node_down(p, l, *left);
    *left -= done;
    if (!*left) return false;
  }
  iso->loss.slot = 0;
  return true;
}

static void receive_spawn(struct isolate *iso, struct signal *s) {
  if (iso->L || open_state(iso)) {
    spawn_arrived(iso, s);
  } else {
    spawn_lost(iso, s, "out of memory");
  }
}

static void receive_signal(struct isolate *iso, struct signal *s) {
  struct process *p = isolate_find(iso, s->to);
  if (p) {
    process_signal(p, s);
  } else if (npid_is_ref(s->to)) {
    receive_at_ref(iso, s);
  } else {
    vm_nobody(iso->vm, s);
  }
}

enum {
  RECEIVED = 256
}; /* signals handled, or ties of a lost node fired, at a time: processes get their turn between those of a
      large crowd */

static struct signal *next_signal(struct isolate *iso) {
  if (!iso->incoming) {
    iso->incoming = inbox_take(&iso->runnable.inbox);
    if (iso->incoming && atomic_load(&iso->vm->waits.for_inbox))
      vm_inbox_taken(iso->vm, &iso->runnable.inbox);
  }
  return iso->incoming;
}

/* Afterwards the inbox was empty, or signals are left in `incoming`: else a wake-up could be lost, as a turn
 * may begin with both, and with the wake-up for the inbox used up.  The loss of a node stays in `incoming`
 * until all its ties have fired, so it comes before what the node sends by the next connection. */
static void take_inbox(struct isolate *iso) {
  struct signal *s;
  for (int left = RECEIVED; (s = next_signal(iso)) && left > 0; left--) {
    if (s->kind == SIGNAL_NODEDOWN && !node_down(iso, s, &left)) return;
    iso->incoming = s->next;
    if (s->kind == SIGNAL_SPAWN) {
      receive_spawn(iso, s);
    } else if (s->kind == SIGNAL_NODEDOWN) {
      signal_free(s);
    } else {
      receive_signal(iso, s);
    }
  }
}

/* --- running --- */

enum { FIRED = 64 }; /* alarms sent at a time */

/* Fires what is due in the order of its time, but only so many alarms: the waits that end do not wait for a
 * crowd of alarms. */
static void fire_timers(struct isolate *iso) {
  struct timers *waits = &iso->timers, *alarms = &iso->alarm_timers;
  if (waits->len == 0 && alarms->len == 0) return;
  int64_t now = clock_ns();
  struct timer *t;
  for (int n = 0;;) {
    bool alarm = n < FIRED && timers_next(alarms) <= timers_next(waits);
    if (!(t = timers_due(alarm ? alarms : waits, now))) return;
    if (alarm) {
      alarm_fire(iso, t);
      n++;
    } else {
      struct process *p = process_of_timer(t);
      p->timed_out = true;
      process_ready(p);
    }
  }
}

static int64_t next_deadline(const struct isolate *iso) {
  int64_t wait = timers_next(&iso->timers), alarm = timers_next(&iso->alarm_timers);
  return wait < alarm ? wait : alarm;
}

static struct process *pop(struct queue *q) {
  struct process *p = q->first;
  if (!p) return NULL;
  q->first = p->next;
  if (!q->first) q->last = NULL;
  q->len--;
  p->state = PROCESS_RUNNING;
  return p;
}

static bool wants_to_compute(const struct isolate *iso) {
  return iso->preempted.first || iso->low.first;
}

/* May a process that computes run in this turn? */
static bool may_compute(const struct isolate *iso) {
  enum sched_class class = iso->preempted.first ? SCHED_CLASS_NORMAL : SCHED_CLASS_LOW;
  return wants_to_compute(iso) && sched_may_compute(iso->runnable.scheduler, &iso->runnable, class);
}

/* The next process that computes: of every SCHED_LOW_TURN of them, one is of low priority. */
static struct process *next_computing(struct isolate *iso) {
  bool low = iso->low.first && (!iso->preempted.first || iso->above_low >= SCHED_LOW_TURN - 1);
  if (!iso->served) iso->began = preempt_begin_slice(iso->runnable.scheduler);
  iso->served = true;
  iso->above_low = low ? 0 : iso->above_low + (iso->low.first != NULL);
  return pop(low ? &iso->low : &iso->preempted);
}

/* The next process to run, or NULL.  A woken process comes before all that compute; but when such processes
 * wait and none had a turn in the last slice (`owed`), one of them comes first. */
static struct process *next_ready(struct isolate *iso) {
  struct process *p = iso->owed ? NULL : pop(&iso->ready);
  if (p) return p;
  iso->owed = false;
  if (may_compute(iso)) return next_computing(iso);
  return pop(&iso->ready);
}

static void publish(struct isolate *iso) {
  const struct heap *h = &iso->heap;
  const bool open = iso->L != NULL;
  atomic_store_explicit(&iso->meters.held, open ? heap_total(h) : 0, memory_order_relaxed);
  atomic_store_explicit(&iso->meters.reserved, open ? heap_reserved(h) : 0, memory_order_relaxed);
  atomic_store_explicit(&iso->meters.large, open ? h->large : 0, memory_order_relaxed);
  atomic_store_explicit(&iso->meters.mail, iso->mail, memory_order_relaxed);
  atomic_store_explicit(&iso->meters.alarms, (int64_t)iso->alarms.len, memory_order_relaxed);
  atomic_store_explicit(&iso->meters.ties, iso->ties, memory_order_relaxed);
}

/* Called when no process is ready.  True: the isolate is idle now, and another thread may run it at once. */
static bool rest(struct isolate *iso) {
  int64_t next = next_deadline(iso), tidy = tidy_at(iso);
  if (tidy < next) next = tidy;
  if (next != TIMER_NEVER) sched_sleep_until(&iso->runnable, next);
  if (iso->multicast.terms_len) multicast_forget(iso->L, iso);
  leave_shut(iso);
  publish(iso);
  vm_end_turn(iso->runnable.scheduler);
  return sched_rest(&iso->runnable);
}

/* The processor time that processes which compute have used in a turn that began at the tick `begin`, when so
 * many were preempted.  Woken ones that used up a slice are charged by the ticks. */
static int64_t used(const struct isolate *iso, unsigned begin, unsigned preempted) {
  if (iso->served) return clock_thread_ns() - iso->began;
  unsigned ticks = sched_ticks(iso->runnable.scheduler) - begin;
  return iso->preempted.len > preempted ? (int64_t)ticks * SCHED_TICK_NS : 0;
}

/* Ends such a turn. */
static void requeue(struct isolate *iso, unsigned begin, unsigned preempted) {
  sched_requeue(&iso->runnable,
                (struct sched_demand){.woken = iso->ready.first || iso->incoming || iso->partings.first,
                                      .normal = iso->preempted.len,
                                      .low = iso->low.len,
                                      .used = used(iso, begin, preempted),
                                      .deadline = next_deadline(iso)});
}

void isolate_run(struct runnable *r, struct scheduler *s) {
  struct isolate *iso = isolate_of_runnable(r);
  unsigned begin = sched_ticks(s), preempted = iso->preempted.len;
  iso->owed = !iso->served && may_compute(iso);
  iso->served = false;
  fire_timers(iso);
  budget_tick(iso->vm, s);
  budget_attend(iso);
  if (tidy_is_due(iso)) tidy_step(iso);
  while (!sched_slice_over(s, begin)) {
    take_inbox(iso);
    if (iso->partings.first) parting_step(iso);
    if (!iso->ready.first) fire_timers(iso);
    struct process *p = next_ready(iso);
    if (p) {
      process_run(p);
    } else if (iso->incoming || iso->partings.first) {
      continue;
    } else if (wants_to_compute(iso)) {
      break; /* others have waited longer */
    } else if (tidy_is_due(iso)) {
      tidy_step(iso);
    } else if (rest(iso)) {
      return;
    }
  }
  publish(iso);
  vm_end_turn(s);
  requeue(iso, begin, preempted);
}
