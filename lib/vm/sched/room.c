/* Ordering: a sender enters its wait, and then looks again whether the receiver lacks room (vm_await_room).
 * A thread that makes room stores that first, and then looks for waits (tell).  All these accesses are
 * seq_cst, so either the sender sees the room, or the other thread sees the wait: no wait is missed.  Where
 * many wait, some are told, and each of these, as it leaves its wait, tells others (waits.h). */
#include "vm/sched/room.h"

#include "vm/sched/deliver.h"
#include "vm/sched/state.h"

enum { INBOX_MAX = 256 << 20 }; /* bytes of signals in the inbox of one isolate, or of the host */

static void deliver_all(struct vm *vm, struct signal *s) {
  for (struct signal *next; s; s = next) {
    next = s->next;
    vm_deliver(vm, s);
  }
}

/* Delivers the signal ROOM to processes that wait for the key. */
static void tell(struct vm *vm, npid key) {
  deliver_all(vm, waits_end(&vm->waits, key));
}

void vm_set_full(struct vm *vm, npid pid, bool full) {
  struct ptab_slot *slot = npid_is_local(pid) ? ptab_find(&vm->ptab, npid_number(pid)) : NULL;
  if (slot) atomic_store(&slot->full, full);
  if (!full) tell(vm, pid);
}

void vm_set_busy(struct vm *vm, uint32_t incarnation, bool busy) {
  nodetab_set_busy(vm->config.nodes, incarnation, busy);
  if (!busy) tell(vm, npid_make(incarnation, 0));
}

void vm_hold(struct vm *vm, npid pid, bool held) {
  waits_hold(&vm->waits, pid, held, nodetab_epoch(vm->config.nodes, npid_incarnation(pid)));
  if (!held) tell(vm, pid);
}

bool vm_unhold_node(struct vm *vm, uint32_t incarnation, uint32_t epoch) {
  npid pids[VM_UNHOLDS];
  size_t n = waits_held_of(&vm->waits, incarnation, epoch, pids, VM_UNHOLDS);
  for (size_t i = 0; i < n; i++) vm_hold(vm, pids[i], false);
  return n == VM_UNHOLDS;
}

/* The key of a process that sends a long signal: a pid that no process has. */
static npid sending_key(npid who) {
  return npid_make(NODETAB_NOWHERE, npid_number(who));
}

void vm_sending(struct vm *vm, npid who) {
  waits_hold(&vm->waits, sending_key(who), true, 0);
}

void vm_sent(struct vm *vm, npid who) {
  if (npid_is_local(who)) vm_hold(vm, sending_key(who), false);
}

int vm_await_sent(struct vm *vm, npid who, struct room_wait **out) {
  npid key = sending_key(who);
  *out = NULL;
  if (!waits_held(&vm->waits, key)) return 0;
  if (!(*out = waits_enter(&vm->waits, key, who, who))) return ERR_NOMEM;
  if (waits_held(&vm->waits, key)) return ERR_BUSY;
  vm_leave_room(vm, out);
  return 0;
}

void vm_inbox_taken(struct vm *vm, const struct inbox *in) {
  tell(vm, waits_key_of_inbox(in));
}

static npid lack_of_inbox(const struct vm *vm, const struct inbox *in, size_t max) {
  if (max > vm->config.mailbox_bytes / 4) max = vm->config.mailbox_bytes / 4;
  return atomic_load(&in->bytes) <= max ? NPID_NONE : waits_key_of_inbox(in);
}

npid vm_lack(struct vm *vm, npid to) {
  if (npid_is_ref(to)) return NPID_NONE; /* no process has such a pid, but a peer may send one */
  if (!npid_is_local(to)) {
    if (nodetab_busy(vm->config.nodes, npid_incarnation(to))) return npid_kernel_of(to);
    return waits_held(&vm->waits, to) ? to : lack_of_inbox(vm, &vm->host.inbox, ROOM_NODES_BYTES);
  }
  if (npid_number(to) == 0) return lack_of_inbox(vm, &vm->host.inbox, INBOX_MAX);
  struct ptab_slot *slot = ptab_find(&vm->ptab, npid_number(to));
  if (!slot) return NPID_NONE;
  bool full = atomic_load(&slot->full), same = ptab_find(&vm->ptab, npid_number(to));
  if (!same) return NPID_NONE; /* the process has ended: `full` may belong to the slot's next process */
  if (full) return to;
  return lack_of_inbox(vm, &atomic_load_explicit(&slot->owner, memory_order_relaxed)->inbox, INBOX_MAX);
}

int vm_await_room(struct vm *vm, npid to, npid who, struct room_wait **out) {
  *out = NULL;
  for (npid key; (key = vm_lack(vm, to)) != NPID_NONE;) {
    if (!(*out = waits_enter(&vm->waits, key, to, who))) return ERR_NOMEM;
    if (vm_lack(vm, to) == key) return ERR_BUSY;
    vm_leave_room(vm, out);
  }
  return 0;
}

void vm_leave_room(struct vm *vm, struct room_wait **w) {
  deliver_all(vm, waits_leave(&vm->waits, *w));
  *w = NULL;
}

void vm_forget_room(struct vm *vm, struct room_wait **w) {
  signals_free(waits_leave(&vm->waits, *w));
  *w = NULL;
}
