/* Invariant: a block of n <= HEAP_SMALL_MAX bytes lies in a chunk and is as long as its class,
 * n rounded up to HEAP_CLASS; a longer one is malloc's.  Chunks are the kernel's, so that those of an isolate
 * that closes go back to it at once.  Lua tells the size at each call, so blocks need no header.  Under
 * AddressSanitizer every block is malloc's, so that it sees their ends. */
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

/* The rest of the old chunk goes to the free list that it still fits. */
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

/* Asks for many pages at once: one by one, as they are touched, they cost several times as much.  An old
 * kernel refuses, and gives them one by one. */
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

/* A meter drifts up when another process's turn collects this one's garbage.  No process holds more than all
 * of them do, so the isolate's total corrects it. */
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
  if (!block) old_size = 0; /* Lua passes the kind of the object there */
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
      return block; /* shrinking must not fail; the block just stays long */
  }
  if (result) charge(h, (int64_t)new_size - (int64_t)old_size);
  return result;
}
