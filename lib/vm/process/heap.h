/* heap: the memory of one isolate, as the allocator of its lua_State.
 *
 * Small blocks come from free lists by size class, so no lock and no other thread is ever involved; large
 * ones from malloc.  What a process allocates while it runs is charged to its meter.  A process over the
 * limit is refused; Lua then collects garbage and asks once more, and if that did not help, `exceeded` turns
 * true. */
#ifndef VM_PROCESS_HEAP_H
#define VM_PROCESS_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HEAP_CLASS = 16, HEAP_SMALL_MAX = 1024 };

struct heap {
  void *free[HEAP_SMALL_MAX / HEAP_CLASS + 1];
  char *at, *end; /* what is left of the newest chunk */
  char *paged;    /* up to where it has been given pages */
  struct chunk *chunks;
  size_t chunk;   /* size of the next one */
  int64_t total;  /* bytes handed out */
  int64_t limit;  /* of a meter */
  int64_t *meter; /* the running process's account; NULL: the isolate's own work, not limited */
  bool refused;   /* the last request was refused: the next one follows a full collection */
  bool exceeded;  /* the running process is over its limit, and collecting did not help */
};

void heap_init(struct heap *h, size_t limit);

/* After lua_close. */
void heap_finish(struct heap *h);

/* Is what runs now over its limit? */
bool heap_is_over(struct heap *h);

/* A lua_Alloc whose ud is the heap. */
void *heap_alloc(void *ud, void *block, size_t old_size, size_t new_size);

#endif
