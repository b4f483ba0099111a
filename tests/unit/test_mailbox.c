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

/* The note stays at its place when messages on both sides of it are taken. */
static void test_note(void) {
  struct mailbox m;
  mailbox_init(&m);
  mailbox_note_ref(&m, 7);
  ok(m.fresh == 7 && m.mark == &m.first,
     "a reference that is made while the mailbox is empty notes its start");
  mailbox_push(&m, message(1));
  mailbox_push(&m, message(2));
  mailbox_note_ref(&m, 8);
  mailbox_push(&m, message(3));
  ok(m.fresh == 8 && (*m.mark)->from == 3, "the next one notes what came after it");
  signal_free(mailbox_take(&m, &m.first->next));
  ok((*m.mark)->from == 3, "also when the message before the note is taken");
  signal_free(mailbox_take(&m, &m.first));
  ok((*m.mark)->from == 3 && m.mark == &m.first, "and the first");
  signal_free(mailbox_take(&m, m.mark));
  mailbox_push(&m, message(4));
  ok((*m.mark)->from == 4, "what comes later is behind the note");
  m.matching = true;
  m.mark = &m.first;
  mailbox_note_ref(&m, 9);
  ok(m.fresh == 8, "during a match, nothing is noted");
  mailbox_finish(&m);
}

/* The senders of the messages, in order, as digits. */
static unsigned order(const struct mailbox *m) {
  unsigned n = 0;
  for (const struct signal *s = m->first; s; s = s->next) n = 10 * n + (unsigned)s->from;
  return n;
}

static void test_urgent(void) {
  struct mailbox m;
  mailbox_init(&m);
  mailbox_push_urgent(&m, message(1));
  mailbox_push(&m, message(2));
  mailbox_push_urgent(&m, message(3));
  mailbox_push(&m, message(4));
  ok(order(&m) == 1324, "urgent messages come before the others, in their order");
  signal_free(mailbox_take(&m, &m.first->next));
  mailbox_push_urgent(&m, message(5));
  ok(order(&m) == 1524, "also when the last urgent one was taken");
  signal_free(mailbox_take(&m, &m.first));
  signal_free(mailbox_take(&m, &m.first));
  mailbox_push_urgent(&m, message(6));
  ok(order(&m) == 624, "and when all were");
  m.matching = true;
  m.mark = m.tail;
  mailbox_push_urgent(&m, message(7));
  ok(m.mark == &m.first && m.restarted, "a search begins again");
  m.matching = false;
  mailbox_note_ref(&m, 9);
  mailbox_push_urgent(&m, message(8));
  ok(m.fresh == NPID_NONE && order(&m) == 67824, "the note of a reference is dropped");
  mailbox_finish(&m);
  mailbox_push(&m, message(1));
  ok(order(&m) == 1, "a finished mailbox begins anew");
  mailbox_finish(&m);
}

int main(void) {
  test_mailbox();
  test_urgent();
  test_note();
  return tap_end();
}
