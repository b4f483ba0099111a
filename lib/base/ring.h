/* ring: a doubly linked list whose links are in its entries.  The list itself is a ring with no entry in it.
 * An entry that is in no list points at itself, so that ring_out may run twice.  One owner, no locking. */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <stdbool.h>
#include <stddef.h>

struct ring {
  struct ring *next, *prev;
};

/* The structure of this type that contains the ring as the member of this name. */
#define RING_ENTRY(ring, type, member) ((type *)(void *)((char *)(ring)-offsetof(type, member)))

static inline void ring_init(struct ring *r) {
  r->next = r->prev = r;
}

static inline bool ring_empty(const struct ring *r) {
  return r->next == r;
}

/* Takes an entry out of its list. */
static inline void ring_out(struct ring *entry) {
  entry->prev->next = entry->next;
  entry->next->prev = entry->prev;
  ring_init(entry);
}

/* Puts an entry, which is in no list, at the end of a list. */
static inline void ring_push(struct ring *list, struct ring *entry) {
  entry->prev = list->prev;
  entry->next = list;
  list->prev->next = entry;
  list->prev = entry;
}

/* The first entry; NULL: none. */
static inline struct ring *ring_first(const struct ring *list) {
  /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): an entry that was freed is in no list */
  return ring_empty(list) ? NULL : list->next;
}

/* Moves all entries of a list to the end of another. */
static inline void ring_move_all(struct ring *from, struct ring *to) {
  if (ring_empty(from)) return;
  from->next->prev = to->prev;
  to->prev->next = from->next;
  from->prev->next = to;
  to->prev = from->prev;
  ring_init(from);
}

#endif
