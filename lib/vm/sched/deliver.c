/* Lock order: vm_deliver takes only the lock of a scheduler's queue and, for a reference, the lock of its
 * shard (refs.h); by config.direct, the host may try one of its own.  So a caller may hold any other lock.
 *
 * A scheduler that has parked a signal sends it together with the next one to another node, or before that,
 * and at the end of its turn, before another scheduler may run the runnable: so signals of a process keep
 * their order. */
#include "vm/sched/deliver.h"

#include "vm/sched/state.h"

#include <stddef.h>

/* Does not call `wake` from a scheduler thread that is still running after vm_stop has timed out: the host
 * may have been freed. */
static void to_inbox(struct vm *vm, struct signal *s) {
  bool gone = atomic_load(&vm->sched.stopping) && sched_self(&vm->sched);
  if (inbox_push(&vm->host.inbox, s) && vm->config.wake && !gone) vm->config.wake(vm->config.data);
}

static bool directly(struct vm *vm, struct signal *s) {
  return !atomic_load(&vm->sched.stopping) && vm->config.direct(vm->config.data, s);
}

/* The first signals of a new process, its LINK and the reply to its spawner, are parked: each goes with what
 * the process sends next. */
static bool may_park(const struct signal *s) {
  return s->kind == SIGNAL_REPLY || s->kind == SIGNAL_LINK;
}

/* Sends what a scheduler has parked, and s, which is to another node, or NULL, behind it. */
static void send_parked(struct vm *vm, struct scheduler *self, struct signal *s) {
  struct signal *first = self->parked;
  self->parked = NULL;
  first->next = s;
  if (s) s->next = NULL;
  if (directly(vm, first)) return;
  to_inbox(vm, first);
  if (s) to_inbox(vm, s);
}

static void to_node(struct vm *vm, struct scheduler *self, struct signal *s) {
  s->next = NULL;
  if (self->parked)
    send_parked(vm, self, s);
  else if (!sched_may_linger(self))
    to_inbox(vm, s);
  else if (may_park(s))
    self->parked = s;
  else if (!directly(vm, s))
    to_inbox(vm, s);
}

static void to_host(struct vm *vm, struct signal *s) {
  bool remote = !npid_is_local(s->to);
  struct scheduler *self = vm->config.direct ? sched_self(&vm->sched) : NULL;
  if (!s->epoch && remote) s->epoch = nodetab_epoch(vm->config.nodes, npid_incarnation(s->to));
  if (remote && self)
    to_node(vm, self, s);
  else
    to_inbox(vm, s);
}

void vm_end_turn(struct scheduler *s) {
  if (s->parked) send_parked((struct vm *)((char *)s->all - offsetof(struct vm, sched)), s, NULL);
}

/* The runnable that owns the process or the reference, which may be the host's runnable; NULL: nothing owns
 * it. */
static struct runnable *owner_of(struct vm *vm, npid to) {
  if (npid_is_ref(to)) return refs_owner(&vm->refs, to);
  struct ptab_slot *slot = ptab_find(&vm->ptab, npid_number(to));
  return slot ? atomic_load_explicit(&slot->owner, memory_order_relaxed) : NULL;
}

void vm_deliver(struct vm *vm, struct signal *s) {
  uint64_t number = npid_number(s->to);
  if (s->to != NPID_NONE && (!npid_is_local(s->to) || number == 0)) {
    to_host(vm, s);
    return;
  }
  struct runnable *owner = s->to == NPID_NONE ? NULL : owner_of(vm, s->to);
  if (!owner) {
    vm_nobody(vm, s);
  } else if (owner == &vm->host) {
    to_host(vm, s);
  } else if (inbox_push(&owner->inbox, s)) {
    sched_wake(&vm->sched, owner);
  }
}

void vm_signal(struct vm *vm, enum signal_kind kind, npid to, npid from, npid ref, struct term *term) {
  struct signal *s = signal_new(kind, to, from, ref, term);
  if (s) {
    vm_deliver(vm, s);
  } else {
    term_unref(term);
  }
}

void vm_nobody(struct vm *vm, struct signal *s) {
  if (s->from != NPID_NONE && s->kind == SIGNAL_MONITOR) {
    vm_signal(vm, SIGNAL_DOWN, s->from, s->to, s->ref, term_build("s", "noproc"));
  } else if (s->from != NPID_NONE && s->kind == SIGNAL_LINK) {
    vm_signal(vm, SIGNAL_LINK_EXIT, s->from, s->to, NPID_NONE, term_build("s", "noproc"));
  } else if (s->from != NPID_NONE && s->kind == SIGNAL_UNLINK) {
    vm_signal(vm, SIGNAL_UNLINK_ACK, s->from, s->to, s->ref, NULL);
  } else if (s->from != NPID_NONE && s->kind == SIGNAL_CALL && s->ref != NPID_NONE) {
    vm_signal(vm, SIGNAL_REPLY, s->from, s->to, s->ref,
              term_build("bss", 0, "no_process", "no such process"));
  }
  signal_free(s);
}

bool vm_alive(struct vm *vm, npid pid) {
  return npid_is_local(pid) && !npid_is_ref(pid) && ptab_find(&vm->ptab, npid_number(pid));
}

npid vm_ref(struct vm *vm) {
  return npid_as_ref(npid_make(0, refs_take_one(&vm->refs)));
}
