/* The inbox is a stack: writers push, and the reader takes the whole stack and reverses it, so that the
 * signals of one writer keep their order.  As single signals are never popped, there is no ABA problem.
 * `bytes` is raised before a signal is pushed and lowered after it is taken, so it is never below zero. */
#include "core/signal.h"

#include <stdlib.h>
#include <string.h>

struct signal *signal_new(enum signal_kind kind, npid to, npid from, npid ref, struct term *term) {
  struct signal *s = malloc(sizeof *s);
  if (!s) return NULL;
  *s = (struct signal){.to = to, .from = from, .ref = ref, .term = term, .kind = (uint8_t)kind};
  return s;
}

void signal_free(struct signal *s) {
  if (!s) return;
  term_unref(s->term);
  free(s);
}

void signals_free(struct signal *s) {
  for (struct signal *next; s; s = next) {
    next = s->next;
    signal_free(s);
  }
}

static const char *const wires[SIGNAL_KINDS] = {
#define X(kind, wire) [kind] = wire,
    SIGNAL_TABLE(X)
#undef X
};

const char *signal_wire(enum signal_kind kind) {
  return kind < SIGNAL_KINDS ? wires[kind] : NULL;
}

int signal_from_wire(const char *wire) {
  for (int i = 0; i < SIGNAL_KINDS; i++)
    if (wires[i] && strcmp(wires[i], wire) == 0) return i;
  return -1;
}

bool inbox_push(struct inbox *in, struct signal *s) {
  atomic_fetch_add_explicit(&in->bytes, signal_weight(s), memory_order_relaxed);
  struct signal *head = atomic_load_explicit(&in->head, memory_order_relaxed);
  do s->next = head;
  while (!atomic_compare_exchange_weak_explicit(&in->head, &head, s, memory_order_release,
                                                memory_order_relaxed));
  return !head;
}

struct signal *inbox_take(struct inbox *in) {
  if (!atomic_load_explicit(&in->head, memory_order_relaxed)) return NULL;
  struct signal *newest = atomic_exchange_explicit(&in->head, NULL, memory_order_acquire), *oldest = NULL;
  size_t bytes = 0;
  while (newest) {
    struct signal *before = newest->next;
    bytes += signal_weight(newest);
    newest->next = oldest;
    oldest = newest;
    newest = before;
  }
  atomic_fetch_sub(&in->bytes, bytes);
  return oldest;
}
