/* A mailbox, and the memory of an isolate. */
#include "vm/process/heap.h"
#include "vm/process/mailbox.h"

#include "tap.h"

static struct signal *message(npid from) {
  return signal_new(SIGNAL_MESSAGE, npid_make(0, 1), from, NPID_NONE, NULL);
}

static void test_mailbox(void) {
  struct mailbox m;
  mailbox_init(&m);
  ok(!m.first && m.count == 0 && m.bytes == 0, "a mailbox begins empty");
  for (npid i = 1; i <= 3; i++) mailbox_push(&m, message(i));
  ok(m.count == 3 && m.bytes == 3 * signal_weight(m.first), "it counts its messages and their weight");
  struct signal *second = mailbox_take(&m, &m.first->next);
  ok(second && second->from == 2 && m.count == 2, "one is taken from the middle");
  signal_free(second);
  struct signal *last = mailbox_take(&m, &m.first->next);
  ok(last && last->from == 3, "and the last one");
  signal_free(last);
  mailbox_push(&m, message(4));
  ok(m.first->from == 1 && m.first->next->from == 4 && m.count == 2, "what comes then is behind the first");
  mailbox_finish(&m);
}

static void test_heap(void) {
  struct heap h;
  int64_t held = 0;
  heap_init(&h, 1 << 20);
  char *small = heap_alloc(&h, NULL, 0, 40);
  memset(small, 7, 40);
  small = heap_alloc(&h, small, 40, 4000);
  bool kept = small && small[0] == 7 && small[39] == 7;
  ok(kept, "a block that grows from small to large keeps its bytes");
  small = heap_alloc(&h, small, 4000, 16);
  ok(small && small[15] == 7, "and one that shrinks");
  heap_alloc(&h, small, 16, 0);
  ok(h.total == 0, "what is freed is not held");
  h.meter = &held;
  void *block = heap_alloc(&h, NULL, 0, 1000);
  ok(block && held >= 1000, "a process is charged for what it allocates");
  ok(!heap_alloc(&h, NULL, 0, 2 << 20), "and refused what is beyond its limit");
  ok(!heap_alloc(&h, NULL, 0, 2 << 20) && h.exceeded, "for good when a collection has not helped");
  heap_alloc(&h, block, 1000, 0);
  ok(held == 0, "and credited with what it frees");
  heap_finish(&h);
}

int main(void) {
  test_mailbox();
  test_heap();
  return tap_end();
}
