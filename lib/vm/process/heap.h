/* heap: the allocator of an isolate's lua_State.  Called by the thread that runs the isolate.
 *
 * Small blocks come from free lists, one for each size class, without a lock; large blocks from malloc. Bytes
 * that a process allocates while it runs are added to its meter.  An allocation that brings a process over
 * the limit is refused.  Lua then collects garbage and asks again; when that is refused, too, `exceeded`
 * becomes true. */
#ifndef VM_PROCESS_HEAP_H
#define VM_PROCESS_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HEAP_CLASS = 16, HEAP_SMALL_MAX = 1024 };

struct heap {
  void *free[HEAP_SMALL_MAX / HEAP_CLASS + 1];
  char *at, *end; /* the unused part of the newest chunk */
  char *paged;    /* end of the part for which page_in has asked for pages */
  struct chunk *chunks;
  size_t chunk;  /* size of the next one */
  int64_t total; /* bytes handed out */
  int64_t limit; /* a meter's highest value */
  int64_t
      *meter;    /* counts the running process's bytes; NULL: the isolate itself allocates, without a limit */
  bool refused;  /* the last request was refused: the next one follows a full collection */
  bool exceeded; /* the running process is over its limit, and collecting did not help */
};

void heap_init(struct heap *h, size_t limit);

/* After lua_close. */
void heap_finish(struct heap *h);

/* Is the running process over its limit? */
bool heap_is_over(struct heap *h);

/* A lua_Alloc whose ud is the heap. */
void *heap_alloc(void *ud, void *block, size_t old_size, size_t new_size);

#endif
