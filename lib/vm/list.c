/* What the host may see and say of the table of processes. */
#include "vm/state.h"

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
