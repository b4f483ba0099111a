/* mailbox: the queue of messages of one process: the urgent ones, then the others, each oldest first; with a
 * mark: up to there a selective receive has looked already, or need not look.  Does not move in memory: tail
 * and mark point into it. */
#ifndef VM_PROCESS_MAILBOX_H
#define VM_PROCESS_MAILBOX_H

#include "core/signal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mailbox {
  struct signal *first;
  struct signal **tail;   /* where the next message is linked */
  struct signal **urgent; /* and the next urgent one: behind those that are here */
  /* While `matching`: the link to the next message that receive_match looks at.  Else, unless `fresh` is
   * NPID_NONE: the end of the mailbox when the reference `fresh` was made, so that only messages from there
   * on can contain it. */
  struct signal **mark;
  npid fresh;
  size_t bytes;
  uint32_t count : 30;
  uint32_t matching : 1;  /* a receive_match is under way */
  uint32_t restarted : 1; /* the mark went back to the start, as an urgent message came during the match */
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

/* A search under way begins again, so that it finds the message; and the note of a reference, which the
 * message may contain, is dropped. */
static inline void mailbox_push_urgent(struct mailbox *m, struct signal *s) {
  s->next = *m->urgent;
  *m->urgent = s;
  m->urgent = &s->next;
  if (!s->next) m->tail = &s->next;
  m->bytes += signal_weight(s);
  m->count++;
  m->fresh = NPID_NONE;
  if (!m->matching) return;
  m->mark = &m->first;
  m->restarted = true;
}

/* Notes that a reference is being made, which no message that is here can contain. */
static inline void mailbox_note_ref(struct mailbox *m, npid ref) {
  if (m->matching) return;
  m->mark = m->tail;
  m->fresh = ref;
}

/* Takes out the message that link leads to. */
struct signal *mailbox_take(struct mailbox *m, struct signal **link);

#endif
