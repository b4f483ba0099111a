/* Invariant: every call is freed by exactly one of the functions that answer it or drop it. */
#include "agent/send.h"

void agent_send(struct agent *a, enum signal_kind kind, npid to, npid from, npid ref, struct term *term) {
  struct signal *s = signal_new(kind, to, from, ref, term ? term_ref(term) : NULL);
  if (!s) {
    term_unref(term);
    log_line(&a->log, "out of memory: a %s signal is lost", signal_wire(kind));
    return;
  }
  vm_deliver(a->vm, s);
}

static void reply(struct agent *a, struct signal *call, struct term *t) {
  if (call->ref != NPID_NONE) agent_send(a, SIGNAL_REPLY, call->from, call->to, call->ref, t);
  term_unref(t);
  signal_free(call);
}

void call_answer(struct agent *a, struct signal *call, struct term *values) {
  reply(a, call, values ? term_build("bt", 1, values) : term_build("b", 1));
}

void call_answer_take(struct agent *a, struct signal *call, struct term *values) {
  call_answer(a, call, values);
  term_unref(values);
}

void call_refuse(struct agent *a, struct signal *call, const struct error *e) {
  reply(a, call, term_build("bss", 0, err_wire(e->code), error_text(e)));
}

void call_refuse_code(struct agent *a, struct signal *call, int code, const char *text) {
  struct error e;
  error_set(&e, code, "%s", text ? text : err_sentence(code));
  call_refuse(a, call, &e);
}

void call_defer(struct signal **list, struct signal *call) {
  call->next = *list;
  *list = call;
}

static struct signal *take_first(struct signal **list) {
  struct signal *call = *list;
  *list = call->next;
  return call;
}

void call_answer_all(struct agent *a, struct signal **list) {
  while (*list) call_answer(a, take_first(list), NULL);
}
