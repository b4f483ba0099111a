/* mailbox: the queue of messages of one process, oldest first, with a mark up to which a selective receive
 * has looked already.  Does not move in memory: tail and mark point into it. */
#ifndef VM_PROCESS_MAILBOX_H
#define VM_PROCESS_MAILBOX_H

#include "core/signal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mailbox {
  struct signal *first;
  struct signal **tail; /* where the next message is linked */
  struct signal **mark; /* the link to the next one that receive_match looks at; NULL: no match under way */
  size_t bytes;
  uint32_t count;
};

void mailbox_init(struct mailbox *m);
void mailbox_finish(struct mailbox *m);

static inline void mailbox_push(struct mailbox *m, struct signal *s) {
  s->next = NULL;
  *m->tail = s;
  m->tail = &s->next;
  m->bytes += signal_weight(s);
  m->count++;
}

/* Takes out the message that link leads to. */
struct signal *mailbox_take(struct mailbox *m, struct signal **link);

#endif
