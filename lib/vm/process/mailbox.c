/* Invariant: `tail` points to the last message's `next`, or to `first` when there is none; `mark` points to
 * `first` or to some message's `next`; `urgent` to the last urgent message's `next`, or to `first`. */
#include "vm/process/mailbox.h"

void mailbox_init(struct mailbox *m) {
  *m = (struct mailbox){.tail = &m->first, .urgent = &m->first, .fresh = NPID_NONE};
}

void mailbox_finish(struct mailbox *m) {
  signals_free(m->first);
  mailbox_init(m);
}

struct signal *mailbox_take(struct mailbox *m, struct signal **link) {
  struct signal *s = *link;
  *link = s->next;
  if (m->tail == &s->next) m->tail = link;
  if (m->urgent == &s->next) m->urgent = link;
  if (m->mark == &s->next) m->mark = link;
  m->bytes -= signal_weight(s);
  m->count--;
  return s;
}
