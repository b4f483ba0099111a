/* Invariant: a block of n <= HEAP_SMALL_MAX bytes lies in a chunk and has the length of its class, n rounded
 * up to a multiple of HEAP_CLASS; a longer block comes from malloc.  Chunks come from mmap, so the memory of
 * an isolate that closes returns to the kernel at once.  Lua passes the size at each call, so blocks need no
 * header.  Under AddressSanitizer every block comes from malloc, so that it finds accesses beyond a block. */
#include "vm/process/heap.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK_MIN = 16 << 10, CHUNK_MAX = 256 << 10, PAGES = 64 << 10, PAGE = 4 << 10 };

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SMALL_MAX 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SMALL_MAX 0
#endif
#endif
#ifndef SMALL_MAX
#define SMALL_MAX ((size_t)HEAP_SMALL_MAX)
#endif

void heap_init(struct heap *h, size_t limit) {
  *h = (struct heap){.chunk = CHUNK_MIN, .limit = limit < INT64_MAX ? (int64_t)limit : INT64_MAX};
}

/* At the start of a chunk. */
struct chunk {
  struct chunk *next;
  size_t size;
};

void heap_finish(struct heap *h) {
  while (h->chunks) {
    struct chunk *chunk = h->chunks;
    h->chunks = chunk->next;
    munmap(chunk, chunk->size);
  }
  h->at = h->end = h->paged = NULL;
}

static size_t class_of(size_t n) {
  return (n + HEAP_CLASS - 1) / HEAP_CLASS;
}

/* Adds a chunk.  The rest of the old chunk becomes a free block of its size's class. */
static bool grow(struct heap *h) {
  struct chunk *chunk = mmap(NULL, h->chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (chunk == MAP_FAILED) return false;
  size_t rest = (size_t)(h->end - h->at) / HEAP_CLASS;
  if (rest > 0) {
    *(void **)h->at = h->free[rest];
    h->free[rest] = h->at;
  }
  *chunk = (struct chunk){h->chunks, h->chunk};
  h->chunks = chunk;
  h->at = h->paged = (char *)chunk + sizeof *chunk;
  h->end = (char *)chunk + h->chunk;
  if (h->chunk < CHUNK_MAX) h->chunk *= 2;
  return true;
}

/* Asks the kernel for PAGES bytes at once, which costs a fraction of as many page faults.  A kernel that does
 * not know MADV_POPULATE_WRITE refuses, and the pages come by page faults. */
static void page_in(struct heap *h) {
  uintptr_t from = (uintptr_t)h->paged & ~(uintptr_t)(PAGE - 1), to = from + PAGES;
  if (to > (uintptr_t)h->end) to = (uintptr_t)h->end & ~(uintptr_t)(PAGE - 1);
  int saved = errno;
  if (to > from) madvise((void *)from, to - from, MADV_POPULATE_WRITE);
  errno = saved;
  h->paged = to > (uintptr_t)h->at ? (char *)to : h->end;
}

static void *take(struct heap *h, size_t n) {
  if (n > SMALL_MAX) return malloc(n);
  size_t class = class_of(n);
  void *block = h->free[class];
  if (block) {
    h->free[class] = *(void **)block;
    return block;
  }
  size_t size = class * HEAP_CLASS;
  if ((size_t)(h->end - h->at) < size && !grow(h)) return NULL;
  block = h->at;
  h->at += size;
  if (h->at > h->paged) page_in(h);
  return block;
}

static void give(struct heap *h, void *block, size_t n) {
  if (n > SMALL_MAX) {
    free(block);
  } else if (block) {
    *(void **)block = h->free[class_of(n)];
    h->free[class_of(n)] = block;
  }
}

static void charge(struct heap *h, int64_t bytes) {
  h->total += bytes;
  if (h->meter) *h->meter += bytes;
}

/* Would `more` bytes bring the running process over its limit?  A process's meter is too high when its
 * garbage was collected during another process's turn, because the bytes freed are then taken off the other
 * meter.  A process holds at most the total of the isolate, so a meter over the limit is set to the total
 * when that is below it. */
static bool has_no_room(struct heap *h, size_t more) {
  if (!h->meter || *h->meter + (int64_t)more <= h->limit) return false;
  if (h->total + (int64_t)more > h->limit) return true;
  *h->meter = h->total;
  return false;
}

bool heap_is_over(struct heap *h) {
  return has_no_room(h, 0);
}

static bool refuses(struct heap *h, size_t more) {
  if (!has_no_room(h, more)) return false;
  if (h->refused || (int64_t)more > h->limit) h->exceeded = true;
  h->refused = !h->refused;
  return true;
}

static void *resize(struct heap *h, void *block, size_t old_size, size_t new_size) {
  if (old_size > SMALL_MAX && new_size > SMALL_MAX) return realloc(block, new_size);
  void *moved = take(h, new_size);
  if (!moved) return NULL;
  memcpy(moved, block, old_size < new_size ? old_size : new_size);
  give(h, block, old_size);
  return moved;
}

void *heap_alloc(void *ud, void *block, size_t old_size, size_t new_size) {
  struct heap *h = ud;
  if (!block) old_size = 0; /* for a new block Lua passes the kind of object instead of a size */
  if (new_size == 0) {
    give(h, block, old_size);
    charge(h, -(int64_t)old_size);
    return NULL;
  }
  if (new_size > old_size) {
    if (refuses(h, new_size - old_size)) return NULL;
    h->refused = false;
  }
  void *result = block;
  if (!block) {
    result = take(h, new_size);
  } else if (old_size > SMALL_MAX || new_size > SMALL_MAX || class_of(old_size) != class_of(new_size)) {
    result = resize(h, block, old_size, new_size);
    if (!result && new_size <= old_size)
      return block; /* Lua requires that shrinking succeeds: the block keeps its length */
  }
  if (result) charge(h, (int64_t)new_size - (int64_t)old_size);
  return result;
}
