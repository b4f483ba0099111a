/* The arrays are reserved address space, which the kernel backs with memory as pages are touched.  Free
 * slots are reused in the order in which they became free.  A slot that was never used is preferred while
 * fewer than WINDOW slots, or fewer than twice as many as there are live processes, were ever used.  So
 * numbers stay small, a number repeats late, and memory follows the count of live processes. */
#include "vm/sched/ptab.h"

#include "core/npid.h"
#include "vm/config.h"

#include <sys/mman.h>

enum { CAPACITY = VM_PROCESSES_MAX, WINDOW = 1 << 15 };

static void *reserve(size_t size) {
  void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

int ptab_init(struct ptab *t) {
  *t = (struct ptab){.fresh = 1, .max = CAPACITY}; /* number 0 is the kernel */
  t->slots = reserve(sizeof *t->slots * CAPACITY);
  t->free = reserve(sizeof *t->free * CAPACITY);
  t->facts = reserve(sizeof *t->facts * CAPACITY);
  if (!t->slots || !t->free || !t->facts) {
    ptab_finish(t);
    return ERR_NOMEM;
  }
  pthread_mutex_init(&t->facts_lock, NULL);
  pthread_mutex_init(&t->lock, NULL);
  return 0;
}

void ptab_finish(struct ptab *t) {
  if (t->slots) munmap(t->slots, sizeof *t->slots * CAPACITY);
  if (t->free) munmap(t->free, sizeof *t->free * CAPACITY);
  if (t->facts) munmap(t->facts, sizeof *t->facts * CAPACITY);
  if (t->slots && t->free && t->facts) {
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->facts_lock);
  }
  t->slots = NULL, t->free = NULL, t->facts = NULL;
}

static uint32_t taken(const struct ptab *t) {
  return t->fresh - t->count - 1;
}

static bool take_one(struct ptab *t, uint64_t *out) {
  uint32_t live = t->fresh - t->count;
  bool young = t->fresh < CAPACITY && (t->count == 0 || t->fresh < WINDOW || t->fresh < 2 * live);
  if (young) {
    *out = t->fresh++;
  } else if (t->count > 0) {
    *out = t->free[t->head];
    t->head = (t->head + 1) % CAPACITY;
    t->count--;
  } else {
    return false;
  }
  return true;
}

size_t ptab_take(struct ptab *t, uint64_t *out, size_t n) {
  size_t got = 0;
  pthread_mutex_lock(&t->lock);
  while (got < n && taken(t) < t->max && take_one(t, &out[got])) got++;
  pthread_mutex_unlock(&t->lock);
  return got;
}

size_t ptab_take_spare(struct ptab *t, uint64_t *out) {
  pthread_mutex_lock(&t->lock);
  size_t got = taken(t) < t->max + PTAB_SPARE && take_one(t, out);
  pthread_mutex_unlock(&t->lock);
  return got;
}

int64_t ptab_bytes(struct ptab *t) {
  pthread_mutex_lock(&t->lock);
  int64_t fresh = t->fresh;
  pthread_mutex_unlock(&t->lock);
  return fresh * (int64_t)(sizeof *t->slots + sizeof *t->facts);
}

static uint64_t next_turn(uint64_t number) {
  uint64_t next = number + CAPACITY;
  return next <= NPID_NUMBER_MAX ? next : number % CAPACITY;
}

void ptab_give(struct ptab *t, const uint64_t *numbers, size_t n) {
  pthread_mutex_lock(&t->lock);
  for (size_t i = 0; i < n; i++) t->free[(t->head + t->count++) % CAPACITY] = next_turn(numbers[i]);
  pthread_mutex_unlock(&t->lock);
}

void ptab_set(struct ptab *t, uint64_t number, struct runnable *owner, void *object) {
  struct ptab_slot *slot = &t->slots[number % CAPACITY];
  atomic_store_explicit(&slot->owner, owner, memory_order_relaxed);
  atomic_store_explicit(&slot->object, object, memory_order_relaxed);
  atomic_store_explicit(&slot->full, false, memory_order_relaxed);
  atomic_store_explicit(&slot->number, number, memory_order_release);
}

void ptab_clear(struct ptab *t, uint64_t number) {
  struct ptab_slot *slot = &t->slots[number % CAPACITY];
  atomic_store_explicit(&slot->number, 0, memory_order_release);
  atomic_store_explicit(&slot->object, NULL, memory_order_relaxed);
}

struct ptab_facts *ptab_facts(struct ptab *t, uint64_t number) {
  return &t->facts[number % CAPACITY];
}

struct ptab_slot *ptab_find(struct ptab *t, uint64_t number) {
  if (number == 0) return NULL;
  struct ptab_slot *slot = &t->slots[number % CAPACITY];
  return atomic_load_explicit(&slot->number, memory_order_acquire) == number ? slot : NULL;
}
