/* Invariant: an alarm is in iso->alarms, under its ref, exactly while its timer is in iso->alarm_timers.
 * During that time refs_owner of the ref is the isolate, and an alarm that a process has set for itself is in
 * the list of the process.
 */
#include "vm/process/alarm.h"

#include "base/clock.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/sched/deliver.h"
#include "vm/sched/state.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct alarm {
  struct timer timer;
  struct alarm *next, **link; /* in the list of the process that has set it for itself; link: NULL in none */
  npid ref, from, to;
  char *name;
  struct term *term;
};

struct isolate *alarm_owner(struct vm *vm, npid ref) {
  struct runnable *owner = refs_owner(&vm->refs, ref);
  return owner ? isolate_of_runnable(owner) : NULL;
}

enum { OVERHEAD = 128 }; /* bytes of an alarm's entries in the tables and the heap of timers, about */

static void chain_in(struct isolate *iso, struct alarm *a) {
  struct process *p = a->to == a->from ? isolate_find(iso, a->to) : NULL;
  if (!p) return;
  a->next = p->alarms;
  a->link = &p->alarms;
  if (a->next) a->next->link = &a->next;
  p->alarms = a;
}

/* Removes the alarm, which has left the table, from the timers, the references and the list. */
static void unlist(struct isolate *iso, struct alarm *a) {
  quota_give(&iso->timers_left, iso->config->limits, LIMIT_TIMERS, 1);
  timers_remove(&iso->alarm_timers, &a->timer);
  isolate_drop_address(iso, a->ref);
  if (a->link) *a->link = a->next;
  if (a->link && a->next) a->next->link = a->link;
}

static void retire(struct isolate *iso, struct alarm *a) {
  idtab_remove(&iso->alarms, a->ref);
  unlist(iso, a);
}

/* Charges the alarm's memory (sign 1) to the process that has set it, while that lives; or takes the charge
 * back (sign -1). */
static void charge(struct isolate *iso, const struct alarm *a, int sign) {
  struct process *p = isolate_find(iso, a->from);
  size_t name = a->name ? strlen(a->name) : 0, term = a->term ? sizeof *a->term + a->term->size : 0;
  if (p) process_charge(p, sign * (int64_t)(sizeof *a + OVERHEAD + name + term));
}

static void alarm_free(struct alarm *a) {
  term_unref(a->term);
  free(a->name);
  free(a);
}

int alarm_set(struct isolate *iso, npid ref, int64_t at, npid from, npid to, const char *name,
              struct term *term) {
  struct limits *limits = iso->config->limits;
  if (!quota_take(&iso->timers_left, limits, LIMIT_TIMERS)) return ERR_BUSY;
  struct alarm *a = calloc(1, sizeof *a);
  if (!a) return quota_give(&iso->timers_left, limits, LIMIT_TIMERS, 1), ERR_NOMEM;
  *a = (struct alarm){.timer = {.at = at, .alarm = true}, .ref = ref, .from = from, .to = to};
  if (name && !(a->name = strdup(name))) goto fail;
  if (idtab_put(&iso->alarms, ref, a)) goto fail;
  if (timers_add(&iso->alarm_timers, &a->timer)) goto forget;
  if (isolate_add_address(iso, ref)) goto stop;
  a->term = term;
  chain_in(iso, a);
  charge(iso, a, 1);
  return 0;
stop:
  timers_remove(&iso->alarm_timers, &a->timer);
forget:
  idtab_remove(&iso->alarms, ref);
fail:
  quota_give(&iso->timers_left, limits, LIMIT_TIMERS, 1);
  alarm_free(a);
  return ERR_NOMEM;
}

/* Has the receiver, a pid of this node, ended? */
static bool is_void(struct isolate *iso, const struct alarm *a) {
  return !a->name && npid_is_local(a->to) && !vm_alive(iso->vm, a->to);
}

bool alarm_is_here(const struct isolate *iso, npid ref) {
  return idtab_get(&iso->alarms, ref);
}

int64_t alarm_cancel(struct isolate *iso, npid ref) {
  struct alarm *a = idtab_remove(&iso->alarms, ref);
  if (!a) return -1;
  int64_t left = a->timer.at - clock_ns();
  bool gone = is_void(iso, a);
  unlist(iso, a);
  charge(iso, a, -1);
  alarm_free(a);
  if (gone) return -1;
  return left > 0 ? left : 0;
}

int alarm_drop(struct isolate *iso, struct alarm **list, int n) {
  int done = 0;
  for (struct alarm *a = *list, *next; done < n && a; a = next, done++) {
    next = a->next;
    retire(iso, a);
    alarm_free(a);
  }
  return done;
}

void alarm_move(struct alarm **from, struct alarm **to) {
  *to = *from;
  *from = NULL;
  if (*to) (*to)->link = to;
}

void alarm_call(struct isolate *iso, struct signal *s) {
  if (s->kind != SIGNAL_CALL || !term_is_word(s->term, "cancel_timer")) {
    vm_nobody(iso->vm, s);
    return;
  }
  int64_t left = alarm_cancel(iso, s->to);
  isolate_signal(iso, SIGNAL_REPLY, s->from, s->to, s->ref, term_build("bi", left >= 0, left));
  signal_free(s);
}

void alarm_fire(struct isolate *iso, struct timer *t) {
  struct alarm *a = (struct alarm *)((char *)t - offsetof(struct alarm, timer));
  retire(iso, a);
  charge(iso, a, -1);
  npid to = a->name ? names_whereis(iso->config->names, a->name, NULL) : a->to;
  if (to != NPID_NONE) {
    isolate_signal(iso, SIGNAL_MESSAGE, to, a->from, NPID_NONE, a->term);
    a->term = NULL;
  }
  alarm_free(a);
}

void alarm_drop_all(struct isolate *iso) {
  struct alarm *a;
  for (size_t at = 0; (a = idtab_next(&iso->alarms, &at));) alarm_free(a);
  quota_give(&iso->timers_left, iso->config->limits, LIMIT_TIMERS, (int32_t)iso->alarms.len);
  idtab_finish(&iso->alarms);
}
