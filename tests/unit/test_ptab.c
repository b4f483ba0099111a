/* The table of processes and the references: numbers, their reuse, their bounds. */
#include "vm/sched/ptab.h"
#include "vm/sched/refs.h"
#include "vm/sched/sched.h"

#include "core/npid.h"
#include "tap.h"
#include "vm/config.h"

static void test_publish(void) {
  struct ptab t;
  struct runnable owner = {0};
  uint64_t number = 0;
  int object;
  ok(ptab_init(&t) == 0 && ptab_take(&t, &number, 1) == 1 && number != 0, "a number is taken, and is not 0");
  ok(!ptab_find(&t, number), "a number that is only taken is nobody's");
  ptab_set(&t, number, &owner, &object);
  struct ptab_slot *slot = ptab_find(&t, number);
  ok(slot && slot->owner == &owner && slot->object == &object, "a published process is found");
  ok(!ptab_find(&t, 0), "number 0 is never a process of the table");
  ok(!ptab_find(&t, number + VM_PROCESSES_MAX), "nor is the next number of the same slot");
  ptab_clear(&t, number);
  ok(!ptab_find(&t, number), "a withdrawn process is not found");
  ptab_finish(&t);
}

static void test_reuse(void) {
  struct ptab t;
  uint64_t first = 0, number = 0, at_bound = NPID_NUMBER_MAX - 5;
  if (ptab_init(&t)) return;
  bool again = false, slot_again = false;
  ptab_take(&t, &first, 1);
  ptab_give(&t, &first, 1);
  for (int i = 0; i < 1 << 17 && !slot_again; i++) {
    ptab_take(&t, &number, 1);
    ptab_give(&t, &number, 1);
    again |= number == first;
    slot_again = number == first + VM_PROCESSES_MAX;
  }
  ok(slot_again && !again, "a slot comes again under its next number");
  ptab_give(&t, &at_bound, 1);
  bool fits = true;
  for (int i = 0; i < 1 << 17; i++) {
    ptab_take(&t, &number, 1);
    ptab_give(&t, &number, 1);
    fits &= number != 0 && number <= NPID_NUMBER_MAX;
  }
  ok(fits, "after the last number of a slot its first one comes, not one beyond the bits of a pid");
  ptab_finish(&t);
}

static void test_full(void) {
  static uint64_t numbers[VM_PROCESSES_MAX];
  struct ptab t;
  if (ptab_init(&t)) return;
  ok(ptab_take(&t, numbers, VM_PROCESSES_MAX) == VM_PROCESSES_MAX - 1, "a table has all but the kernel's");
  uint64_t one;
  ok(ptab_take(&t, &one, 1) == 0, "a full table has no number left");
  ptab_give(&t, numbers, 1);
  ok(ptab_take(&t, &one, 1) == 1 && one == numbers[0] + VM_PROCESSES_MAX, "until one is given back");
  ptab_finish(&t);
}

static void test_refs(void) {
  struct refs r;
  struct runnable owner = {0};
  refs_init(&r);
  uint64_t a = refs_take(&r), b = refs_take(&r), c = refs_take_one(&r), d = refs_take_one(&r);
  ok(a && a % REFS_BLOCK == 0 && b % REFS_BLOCK == 0 && a != b, "blocks of references differ");
  npid first = npid_as_ref(npid_make(0, a)), last = npid_as_ref(npid_make(0, a + REFS_BLOCK - 1));
  npid next = npid_as_ref(npid_make(0, b)), single = npid_as_ref(npid_make(0, c));
  ok(c != d && refs_block(single) != refs_block(first) && refs_block(single) != refs_block(next),
     "single references are in no such block");
  atomic_store(&r.blocks, UINT64_C(1) << 33);
  uint64_t wrapped = refs_take(&r);
  ok(wrapped >= 1 && wrapped + REFS_BLOCK - 1 <= NPID_NUMBER_MAX,
     "numbers begin again before they run into the bits of the incarnation");
  ok(!refs_owner(&r, first), "a reference belongs to nobody");
  ok(refs_claim(&r, refs_block(first), &owner) == 0 && refs_owner(&r, first) == &owner &&
         refs_owner(&r, last) == &owner && !refs_owner(&r, next),
     "until its block is claimed");
  ok(!refs_owner(&r, npid_as_ref(npid_make(1, a))), "another node's of that number is not ours");
  refs_release(&r, refs_block(first));
  ok(!refs_owner(&r, last), "and nobody's again when the block is released");
  refs_finish(&r);
}

int main(void) {
  test_publish();
  test_reuse();
  test_full();
  test_refs();
  return tap_end();
}
