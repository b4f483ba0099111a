/* Orderings: the signals of one parting keep their order, links first, and partings come one after the other.
 * The process is in no table any more, so whoever sends it a LINK, MONITOR or UNLINK meanwhile is answered at
 * once that it does not exist.  That answer may overtake the signal of the tie that is being cut; then the
 * other end has no tie left when that signal arrives, and ignores it. */
#include "vm/process/parting.h"

#include "vm/process/alarm.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/process/ties.h"

#include <stdlib.h>

enum { STEP = 64, ALL = 1 << 30 };

struct parting {
  struct parting *next;
  npid pid;
  struct term *reason;
  struct ties_cut ties;
  struct signal *messages;
  struct alarm *alarms; /* that it had set for itself */
};

/* Does up to n pieces of work; true: all is done. */
static bool work(struct isolate *iso, struct parting *t, int n) {
  n -= ties_cut(iso, &t->ties, t->pid, t->reason, n);
  for (struct signal *s; n > 0 && (s = t->messages); n--) {
    t->messages = s->next;
    signal_free(s);
  }
  n -= alarm_drop(iso, &t->alarms, n);
  return n > 0;
}

static void finish(struct isolate *iso, const struct parting *t) {
  term_unref(t->reason);
  isolate_give_number(iso, npid_number(t->pid));
  atomic_fetch_sub(&iso->live, 1);
}

/* Keeps what the first step has left for later steps; false: there is no memory. */
static bool keep(struct isolate *iso, struct parting *t) {
  struct parting *kept = malloc(sizeof *kept);
  if (!kept) return false;
  *kept = *t;
  alarm_move(&t->alarms, &kept->alarms);
  if (iso->partings.last) {
    iso->partings.last->next = kept;
  } else {
    iso->partings.first = kept;
  }
  iso->partings.last = kept;
  return true;
}

void parting_begin(struct process *p, struct term *reason) {
  struct isolate *iso = p->isolate;
  struct parting t = {
      .pid = p->pid, .reason = reason, .ties = {.ties = p->ties}, .messages = p->mailbox.first};
  alarm_move(&p->alarms, &t.alarms);
  p->ties = NULL;
  iso->mail -= (int64_t)p->mailbox.bytes;
  mailbox_init(&p->mailbox);
  if (work(iso, &t, STEP)) {
    finish(iso, &t);
  } else if (!keep(iso, &t)) {
    work(iso, &t, ALL);
    finish(iso, &t);
  }
}

static struct parting *pop(struct isolate *iso) {
  struct parting *t = iso->partings.first;
  iso->partings.first = t->next;
  if (!t->next) iso->partings.last = NULL;
  return t;
}

void parting_step(struct isolate *iso) {
  struct parting *t = iso->partings.first;
  if (!work(iso, t, STEP)) return;
  pop(iso);
  finish(iso, t);
  free(t);
}

void parting_drop_all(struct isolate *iso) {
  while (iso->partings.first) {
    struct parting *t = pop(iso);
    ties_free(iso, t->ties.ties);
    signals_free(t->messages);
    alarm_drop(iso, &t->alarms, ALL);
    finish(iso, t);
    free(t);
  }
}
