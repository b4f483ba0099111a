/* Rings: lists whose links are in their entries. */
#include "base/ring.h"

#include "tap.h"

struct item {
  int number;
  struct ring ring;
};

static int first_of(const struct ring *list) {
  struct ring *r = ring_first(list);
  return r ? RING_ENTRY(r, struct item, ring)->number : 0;
}

int main(void) {
  struct ring list, other;
  struct item a = {.number = 1}, b = {.number = 2}, c = {.number = 3};
  ring_init(&list);
  ring_init(&other);
  ring_init(&a.ring);
  ring_init(&b.ring);
  ring_init(&c.ring);
  ok(ring_empty(&list) && !ring_first(&list), "a new list is empty");
  ring_push(&list, &a.ring);
  ring_push(&list, &b.ring);
  ok(first_of(&list) == 1, "the first that was pushed is the first");
  ring_out(&a.ring);
  ring_out(&a.ring);
  ok(first_of(&list) == 2 && ring_empty(&a.ring), "an entry leaves, and may leave twice");
  ring_push(&list, &a.ring);
  ring_push(&other, &c.ring);
  ring_move_all(&list, &other);
  ok(ring_empty(&list) && first_of(&other) == 3, "all entries go to the end of another list");
  ring_out(&c.ring);
  ok(first_of(&other) == 2, "in their order");
  ring_out(&b.ring);
  ok(first_of(&other) == 1 && a.ring.next == &other, "and the last of them stays");
  ring_move_all(&list, &other);
  ok(first_of(&other) == 1, "moving nothing changes nothing");
  return tap_end();
}
