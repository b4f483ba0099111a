/* What the host may see and say of the table of processes. */
#include "vm/process/isolate.h"
#include "vm/sched/state.h"

enum { INBOX_MAX = 256 << 20 };

size_t vm_pids(struct vm *vm, npid *out, size_t max) {
  pthread_mutex_lock(&vm->ptab.lock);
  uint32_t used = vm->ptab.fresh;
  pthread_mutex_unlock(&vm->ptab.lock);
  size_t n = 0;
  for (uint32_t i = 0; i < used && n < max; i++) {
    uint64_t number = atomic_load_explicit(&vm->ptab.slots[i].number, memory_order_acquire);
    if (number) out[n++] = npid_make(0, number);
  }
  return n;
}

void vm_set_full(struct vm *vm, npid pid, bool full) {
  struct ptab_slot *slot = npid_is_local(pid) ? ptab_find(&vm->ptab, npid_number(pid)) : NULL;
  if (slot) atomic_store(&slot->full, full);
  if (!full) room_came(vm, pid);
}

void vm_set_busy(struct vm *vm, uint32_t incarnation, bool busy) {
  nodetab_set_busy(vm->config.nodes, incarnation, busy);
  if (!busy) room_came(vm, npid_make(incarnation, 0));
}

void vm_hold(struct vm *vm, npid pid, bool held) {
  room_hold(&vm->room, pid, held);
  if (!held) room_came(vm, pid);
}

void vm_unhold_node(struct vm *vm, uint32_t incarnation) {
  npid pids[256];
  size_t n;
  do {
    n = room_held_of(&vm->room, incarnation, pids, sizeof pids / sizeof *pids);
    for (size_t i = 0; i < n; i++) vm_hold(vm, pids[i], false);
  } while (n > 0);
}

static npid lack_of_inbox(const struct vm *vm, const struct inbox *in) {
  size_t max = vm->config.mailbox_bytes / 4 < INBOX_MAX ? vm->config.mailbox_bytes / 4 : INBOX_MAX;
  return atomic_load(&in->bytes) <= max ? NPID_NONE : room_of_inbox(in);
}

npid vm_lack(struct vm *vm, npid to) {
  if (npid_is_ref(to)) return NPID_NONE; /* nobody's, but a peer may write it */
  if (!npid_is_local(to)) {
    if (nodetab_busy(vm->config.nodes, npid_incarnation(to))) return npid_kernel_of(to);
    return room_held(&vm->room, to) ? to : lack_of_inbox(vm, &vm->host);
  }
  if (npid_number(to) == 0) return lack_of_inbox(vm, &vm->host);
  struct ptab_slot *slot = ptab_find(&vm->ptab, npid_number(to));
  if (!slot) return NPID_NONE;
  bool full = atomic_load(&slot->full), same = ptab_find(&vm->ptab, npid_number(to));
  if (!same) return NPID_NONE; /* gone meanwhile: that was another's */
  if (full) return to;
  void *owner = atomic_load_explicit(&slot->owner, memory_order_relaxed);
  return lack_of_inbox(vm, owner == vm_host(vm) ? &vm->host : &((struct isolate *)owner)->inbox);
}

int vm_await_room(struct vm *vm, npid to, npid who, struct room_wait **out) {
  *out = NULL;
  for (npid lack; (lack = vm_lack(vm, to)) != NPID_NONE;) {
    if (!(*out = room_enter(&vm->room, lack, to, who))) return ERR_NOMEM;
    if (vm_lack(vm, to) == lack) return ERR_BUSY;
    vm_leave_room(vm, out);
  }
  return 0;
}

void vm_leave_room(struct vm *vm, struct room_wait **w) {
  room_leave(&vm->room, *w);
  *w = NULL;
}
