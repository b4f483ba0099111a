/* A mailbox. */
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

int main(void) {
  test_mailbox();
  return tap_end();
}
