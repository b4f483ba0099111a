/* What the host may see and say of the table of processes. */
#include "vm/isolate.h"
#include "vm/state.h"

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

void vm_host_set_full(struct vm *vm, npid pid, bool full) {
  struct ptab_slot *slot = npid_is_local(pid) ? ptab_find(&vm->ptab, npid_number(pid)) : NULL;
  if (slot) atomic_store_explicit(&slot->full, full, memory_order_relaxed);
}

void vm_hold(struct vm *vm, npid pid, bool held) {
  held_put(&vm->held, pid, held);
}

void vm_unhold_node(struct vm *vm, uint32_t incarnation) {
  held_drop_node(&vm->held, incarnation);
}

bool vm_has_room(struct vm *vm, npid to) {
  const struct inbox *inbox = &vm->host;
  if (npid_is_local(to) && npid_number(to) != 0) {
    struct ptab_slot *slot = ptab_find(&vm->ptab, npid_number(to));
    if (!slot) return true;
    if (atomic_load_explicit(&slot->full, memory_order_relaxed)) return false;
    void *owner = atomic_load_explicit(&slot->owner, memory_order_relaxed);
    if (owner != vm_host(vm)) inbox = &((struct isolate *)owner)->inbox;
  }
  if (!npid_is_local(to) && nodetab_busy(vm->config.nodes, npid_incarnation(to))) return false;
  if (!npid_is_local(to) && held_has(&vm->held, to)) return false;
  size_t max = vm->config.mailbox_bytes / 4 < INBOX_MAX ? vm->config.mailbox_bytes / 4 : INBOX_MAX;
  return atomic_load_explicit(&inbox->bytes, memory_order_relaxed) <= max;
}
