/* Invariant: the timer runs exactly while somebody is held; each of them is told of room once, and is then no
 * longer in the list. */
#include "agent/pressure.h"

#include "agent/calls.h"
#include "agent/hosted.h"

#include <stdlib.h>

enum { LOOK_MS = 10 /* how often it is seen whether there is room again */ };

struct hold {
  struct hold *next;
  npid pid;      /* of this node */
  uint32_t node; /* which has been told to hold what it sends there */
};

struct pressure {
  struct hold *holds;
  uv_timer_t look;
};

static void tell(struct agent *a, uint32_t node, const char *what, npid pid) {
  struct term *t = term_build("sp", what, pid);
  agent_send(a, SIGNAL_CALL, npid_make(node, 0), NPID_KERNEL, NPID_NONE, t);
  term_unref(t);
}

static void settle(struct pressure *p) {
  if (!p->holds) uv_timer_stop(&p->look);
}

static void on_look(uv_timer_t *timer) {
  struct agent *a = timer->data;
  for (struct hold **at = &a->pressure->holds; *at;) {
    struct hold *h = *at;
    if (!vm_has_room(a->vm, h->pid)) {
      at = &h->next;
      continue;
    }
    *at = h->next;
    tell(a, h->node, "room", h->pid);
    free(h);
  }
  settle(a->pressure);
}

static bool is_told(const struct pressure *p, npid pid, uint32_t node) {
  for (const struct hold *h = p->holds; h; h = h->next)
    if (h->pid == pid && h->node == node) return true;
  return false;
}

void pressure_arrived(struct agent *a, uint32_t from, const struct signal *s) {
  struct pressure *p = a->pressure;
  if (s->kind != SIGNAL_MESSAGE || vm_has_room(a->vm, s->to) || is_told(p, s->to, from)) return;
  struct hold *h = malloc(sizeof *h);
  if (!h) return; /* then the bound of its mailbox holds alone */
  *h = (struct hold){p->holds, s->to, from};
  p->holds = h;
  tell(a, from, "hold", s->to);
  if (!uv_is_active((uv_handle_t *)&p->look)) uv_timer_start(&p->look, on_look, LOOK_MS, LOOK_MS);
}

void pressure_node_down(struct agent *a, uint32_t incarnation) {
  for (struct hold **at = &a->pressure->holds; *at;) {
    struct hold *h = *at;
    if (h->node != incarnation) {
      at = &h->next;
      continue;
    }
    *at = h->next;
    free(h);
  }
  settle(a->pressure);
  vm_unhold_node(a->vm, incarnation);
}

/* --- the other side ---------------------------------------------------------------------------------------
 */

static void note(struct agent *a, struct signal *call, struct term_reader r, bool held) {
  npid pid;
  bool theirs = term_get_pid(&r, &pid) && npid_incarnation(pid) == npid_incarnation(call->from);
  if (theirs && !npid_is_local(pid)) vm_hold(a->vm, pid, held);
  call_answer(a, call, NULL);
}

void pressure_op_hold(struct agent *a, struct signal *call, struct term_reader args) {
  note(a, call, args, true);
}

void pressure_op_room(struct agent *a, struct signal *call, struct term_reader args) {
  note(a, call, args, false);
}

/* --- its life ---------------------------------------------------------------------------------------------
 */

int pressure_init(struct agent *a) {
  a->pressure = calloc(1, sizeof *a->pressure);
  if (!a->pressure) return ERR_NOMEM;
  uv_timer_init(&a->loop, &a->pressure->look);
  a->pressure->look.data = a;
  return 0;
}

void pressure_finish(struct agent *a) {
  if (a->pressure) uv_close((uv_handle_t *)&a->pressure->look, NULL);
}

void pressure_free(struct agent *a) {
  if (!a->pressure) return;
  for (struct hold *h = a->pressure->holds, *next; h; h = next) {
    next = h->next;
    free(h);
  }
  free(a->pressure);
  a->pressure = NULL;
}
