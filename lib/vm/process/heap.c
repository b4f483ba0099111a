/* Invariant: a block has a header of HEAP_HEADER bytes, its tag: the index of an account, the generation of
 * that account, and whether the block comes from malloc.  The tag of an account changes when its process
 * ends, so a block whose tag is not that of its account belongs to no process any more.  A small block lies
 * in a chunk and has the length of its class; chunks begin at multiples of CHUNK, so the address of a block
 * tells in which chunk the block lies.  The heap maps chunks with mmap, so the memory of an isolate that
 * closes returns to the kernel at once.  Lua passes the size of a block at each call, so headers hold no
 * size.  Under AddressSanitizer every block comes from malloc, so that the sanitizer finds accesses beyond a
 * block.
 *
 * Trimming first moves all free blocks into limbo, a list from which nothing is allocated, and counts for
 * each chunk how many of its bytes are in limbo.  A chunk whose bytes are all in limbo has no block in use,
 * and no block of it can be allocated: trimming unmaps the chunk.  Trimming parks a chunk that has few blocks
 * in use: its blocks in limbo never return to the free lists, and the pages that they fill return to the
 * kernel; the chunk is unmapped once all of its blocks are free. */
#include "vm/process/heap.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  CHUNK = 256 << 10,
  PAGES_MIN = 16 << 10,
  PAGES_MAX = 64 << 10,
  PAGE = 4 << 10,
  TRIM_LEAST = 512 << 10
};

#define INDEX_BITS  23
#define FROM_MALLOC ((uint64_t)1 << INDEX_BITS)
#define INDEX_MASK  (FROM_MALLOC - 1)
#define GENERATION  ((uint64_t)1 << (INDEX_BITS + 1))

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

void heap_init(struct heap *h) {
  *h = (struct heap){.pages = PAGES_MIN, .trim_due = TRIM_LEAST};
  for (uint32_t i = 0; i < HEAP_SLOT; i++) h->first[i].tag = i;
  h->accounts = h->first;
  h->accounts_len = HEAP_SLOT;
  heap_enter(h, HEAP_ISOLATE);
  heap_set_limit(h, INT64_MAX);
}

/* At the start of a chunk. */
struct chunk {
  struct chunk *next;
  size_t limbo; /* bytes of its blocks in limbo; those of a parked chunk stay there */
  bool parked;
  uint32_t dropped;                    /* pages that have returned to the kernel */
  uint16_t free_in_page[CHUNK / PAGE]; /* limbo, by page */
};

void heap_finish(struct heap *h) {
  while (h->chunks) {
    struct chunk *chunk = h->chunks;
    h->chunks = chunk->next;
    munmap(chunk, CHUNK);
  }
  if (h->accounts != h->first) free(h->accounts);
  heap_init(h);
}

/* --- accounts --- */

bool heap_open_account(struct heap *h, uint32_t slot) {
  uint32_t index = HEAP_SLOT + slot, len = h->accounts_len;
  if (index > INDEX_MASK) return false;
  if (index < len) return true;
  while (len <= index) len *= 2;
  struct heap_account *old = h->accounts == h->first ? NULL : h->accounts,
                      *fresh = realloc(old, len * sizeof *fresh);
  if (!fresh) return false;
  if (h->accounts == h->first) memcpy(fresh, h->first, sizeof h->first);
  for (uint32_t i = h->accounts_len; i < len; i++) fresh[i] = (struct heap_account){.tag = i};
  h->accounts = fresh;
  h->accounts_len = len;
  h->account = &fresh[h->owner];
  return true;
}

void heap_close_account(struct heap *h, uint32_t slot) {
  struct heap_account *a = &h->accounts[HEAP_SLOT + slot];
  h->accounts[HEAP_NOBODY].bytes += a->bytes;
  a->bytes = 0;
  a->tag += GENERATION;
}

static struct heap_account *account_of(struct heap *h, uint64_t tag) {
  struct heap_account *a = &h->accounts[tag & INDEX_MASK];
  return a->tag == (tag & ~FROM_MALLOC) ? a : &h->accounts[HEAP_NOBODY];
}

void heap_charge(struct heap *h, uint32_t owner, int64_t bytes) {
  h->accounts[owner].bytes += bytes;
  h->outside += bytes;
}

/* --- chunks --- */

static struct chunk *map_chunk(void) {
  size_t size = CHUNK;
  char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED || (uintptr_t)at % CHUNK == 0) return at == MAP_FAILED ? NULL : (struct chunk *)at;
  munmap(at, size);
  at = mmap(NULL, size + CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return NULL;
  size_t before = -(uintptr_t)at % CHUNK;
  if (before) munmap(at, before);
  if (before < CHUNK) munmap(at + before + size, CHUNK - before);
  return (struct chunk *)(at + before);
}

static struct chunk *chunk_of(const void *block) {
  return (struct chunk *)((uintptr_t)block & ~(uintptr_t)(CHUNK - 1));
}

static void push_free(void **list, void *block) {
  *(void **)block = *list;
  *list = block;
}

/* Adds a chunk.  The unused rest of the previous chunk becomes a free block of the class of its size. */
static bool grow(struct heap *h) {
  struct chunk *chunk = map_chunk();
  if (!chunk) return false;
  size_t rest = (size_t)(h->end - h->at) / HEAP_CLASS;
  if (rest > 0) push_free(&h->free[rest], h->at);
  *chunk = (struct chunk){.next = h->chunks};
  h->chunks = chunk;
  h->mapped += CHUNK;
  h->at = h->paged = (char *)chunk + sizeof *chunk;
  h->end = (char *)chunk + CHUNK;
  return true;
}

/* Asks the kernel for several pages at once, which costs a fraction of as many page faults.  A kernel that
 * does not know MADV_POPULATE_WRITE refuses, and the pages come by page faults. */
static void page_in(struct heap *h) {
  uintptr_t from = (uintptr_t)h->paged & ~(uintptr_t)(PAGE - 1), to = from + h->pages;
  if (to > (uintptr_t)h->end) to = (uintptr_t)h->end & ~(uintptr_t)(PAGE - 1);
  if (h->pages < PAGES_MAX) h->pages *= 2;
  int saved = errno;
  if (to > from) madvise((void *)from, to - from, MADV_POPULATE_WRITE);
  errno = saved;
  h->paged = to > (uintptr_t)h->at ? (char *)to : h->end;
}

/* --- trimming --- */

bool heap_may_trim(const struct heap *h) {
  return h->trim != HEAP_TRIM_NONE || h->mapped - h->in_use > h->trim_due;
}

enum { NEVER = 1 }; /* no multiple of HEAP_CLASS: the chunk with h->at stays */

static void begin_trim(struct heap *h) {
  for (struct chunk *c = h->chunks; c; c = c->next)
    if (!c->parked) memset(c->free_in_page, 0, sizeof c->free_in_page), c->limbo = 0;
  chunk_of(h->at - 1)->limbo = NEVER;
  memcpy(h->limbo, h->free, sizeof h->free);
  memset(h->free, 0, sizeof h->free);
  h->trim = HEAP_TRIM_COUNTS;
  h->trim_class = 0;
  h->trim_at = h->limbo[0];
}

static bool is_empty(const struct chunk *c) {
  return c->limbo == CHUNK - sizeof *c;
}

/* Parks the chunks of which less than an eighth is in use. */
static void park(struct heap *h) {
  for (struct chunk *c = h->chunks; c; c = c->next)
    if (c->limbo >= CHUNK - CHUNK / 8 && c->limbo % HEAP_CLASS != NEVER) c->parked = true;
}

/* Returns to the kernel those pages of a parked chunk in which no byte is in use. */
static void drop_pages(struct heap *h, struct chunk *c) {
  uint32_t dropped = 0;
  for (uint32_t i = 0, pages = CHUNK / PAGE; i < pages; i++) {
    uint32_t first = i;
    while (i < pages && c->free_in_page[i] == PAGE) i++;
    if (i > first) madvise((char *)c + (size_t)first * PAGE, (size_t)(i - first) * PAGE, MADV_DONTNEED);
    dropped += i - first;
  }
  h->mapped -= (int64_t)(dropped - c->dropped) * PAGE;
  c->dropped = dropped;
}

/* Unmaps the chunks that are empty, and sets when the next trimming is due: once an eighth more bytes are
 * free than now. */
static void end_trim(struct heap *h) {
  for (struct chunk **link = &h->chunks, *c; (c = *link);) {
    if (!is_empty(c)) {
      if (c->parked) drop_pages(h, c);
      link = &c->next;
      continue;
    }
    *link = c->next;
    h->mapped -= CHUNK - (int64_t)c->dropped * PAGE;
    munmap(c, CHUNK);
  }
  int64_t rest = h->mapped - h->in_use;
  h->trim_due = TRIM_LEAST > rest ? TRIM_LEAST : rest + TRIM_LEAST / 4 + rest / 8;
  h->trim = HEAP_TRIM_NONE;
}

static void count_one(struct heap *h) {
  struct chunk *c = chunk_of(h->trim_at);
  size_t size = (size_t)h->trim_class * HEAP_CLASS, at = (size_t)((char *)h->trim_at - (char *)c);
  size_t here = PAGE - at % PAGE < size ? PAGE - at % PAGE : size;
  c->limbo += size;
  c->free_in_page[at / PAGE] += (uint16_t)here;
  if (here < size) c->free_in_page[at / PAGE + 1] += (uint16_t)(size - here);
  h->trim_at = *(void **)h->trim_at;
}

/* Puts a block back into its free list, unless its chunk is about to be unmapped or is parked. */
static void sort_one(struct heap *h) {
  void *block = h->trim_at;
  h->trim_at = h->limbo[h->trim_class] = *(void **)block;
  if (!is_empty(chunk_of(block)) && !chunk_of(block)->parked) push_free(&h->free[h->trim_class], block);
}

bool heap_trim(struct heap *h, int blocks) {
  if (h->trim == HEAP_TRIM_NONE) {
    if (!h->at) return true;
    begin_trim(h);
  }
  while (blocks-- > 0) {
    if (h->trim_at) {
      (h->trim == HEAP_TRIM_COUNTS ? count_one : sort_one)(h);
    } else if (++h->trim_class < HEAP_CLASSES) {
      h->trim_at = h->limbo[h->trim_class];
    } else if (h->trim == HEAP_TRIM_COUNTS) {
      park(h);
      h->trim = HEAP_TRIM_SORTS;
      h->trim_class = 0;
      h->trim_at = h->limbo[0];
    } else {
      end_trim(h);
      return true;
    }
  }
  return false;
}

/* --- blocks, with their headers --- */

static size_t class_of(size_t n) {
  return (n + HEAP_HEADER + HEAP_CLASS - 1) / HEAP_CLASS;
}

/* A size that no block can have. The sum of this size and of all bytes in use does not overflow. */
#define LONGEST ((size_t)1 << 60)

/* How many bytes a block for n bytes of Lua takes from the heap, with its header. */
static int64_t cost_of(size_t n) {
  if (n > SMALL_MAX) return (int64_t)((n < LONGEST ? n : LONGEST) + HEAP_HEADER);
  return (int64_t)(class_of(n) * HEAP_CLASS);
}

static uint64_t *header_of(void *block) {
  return (uint64_t *)block - 1;
}

/* Cuts a block off the unused part of the newest chunk. */
static void *take_fresh(struct heap *h, size_t size) {
  if ((size_t)(h->end - h->at) < size && !grow(h)) return NULL;
  void *block = h->at;
  h->at += size;
  if (h->at > h->paged) page_in(h);
  return block;
}

static inline void *take_small(struct heap *h, size_t class) {
  void *block = h->free[class];
  if (block)
    h->free[class] = *(void **)block;
  else if (!(block = take_fresh(h, class * HEAP_CLASS)))
    return NULL;
  h->in_use += (int64_t)(class * HEAP_CLASS);
  return block;
}

static void *take_large(struct heap *h, size_t n) {
  void *block = malloc(n + HEAP_HEADER);
  if (block) h->large += (int64_t)n + HEAP_HEADER;
  return block;
}

/* Allocates a block and writes the tag into its header, without a charge to an account. */
static void *take(struct heap *h, size_t n, uint64_t tag) {
  uint64_t *header = n > SMALL_MAX ? take_large(h, n) : take_small(h, class_of(n));
  if (!header) return NULL;
  *header = n > SMALL_MAX ? tag | FROM_MALLOC : tag & ~FROM_MALLOC;
  return header + 1;
}

static inline void give_small(struct heap *h, uint64_t *header, size_t class) {
  h->in_use -= (int64_t)(class * HEAP_CLASS);
  push_free(&h->free[class], header);
}

static void give(struct heap *h, void *block, size_t n) {
  uint64_t *header = header_of(block);
  if (*header & FROM_MALLOC) {
    h->large -= cost_of(n);
    free(header);
  } else {
    give_small(h, header, class_of(n));
  }
}

/* --- the limit --- */

/* True when the request is to be refused, because it brings the running process over its bound, or follows a
 * request that was refused.  asks_again: Lua collects garbage and asks again when the request is refused. */
static bool decides(struct heap *h, int64_t more, bool asks_again) {
  int64_t held = h->account->bytes;
  bool second = h->refused;
  if (h->owner < HEAP_SLOT) return false;
  h->refused = false;
  if (held + more <= (second ? heap_bound_collected(h) : h->bound)) return false;
  if (second || more > h->limit) {
    h->exceeded = true;
    return true;
  }
  if (!asks_again && held <= h->bound && held + more <= 2 * h->limit) return false;
  h->refused = true;
  return true;
}

static inline bool refuses(struct heap *h, int64_t more, bool asks_again) {
  return (h->account->bytes + more > h->bound || h->refused) && decides(h, more, asks_again);
}

/* --- lua_Alloc --- */

/* Allocates a small block of a process that stays within its limit, as most requests want. */
static inline void *allocate_small(struct heap *h, size_t class) {
  int64_t cost = (int64_t)(class * HEAP_CLASS);
  uint64_t *header = take_small(h, class);
  if (!header) return NULL;
  *header = h->account->tag & ~FROM_MALLOC;
  h->account->bytes += cost;
  return header + 1;
}

static void *allocate(struct heap *h, size_t n, bool asks_again) {
  int64_t cost = cost_of(n);
  if (refuses(h, cost, asks_again)) return NULL;
  if (n <= SMALL_MAX) return allocate_small(h, class_of(n));
  void *block = take(h, n, h->account->tag);
  if (block) h->account->bytes += cost;
  return block;
}

static void release(struct heap *h, void *block, size_t n) {
  uint64_t *header = header_of(block);
  if (*header & FROM_MALLOC) {
    account_of(h, *header)->bytes -= cost_of(n);
    give(h, block, n);
  } else {
    size_t class = class_of(n);
    account_of(h, *header)->bytes -= (int64_t)(class * HEAP_CLASS);
    give_small(h, header, class);
  }
}

/* Copies the block into a block of another length, writes the tag into its header, and frees the old block.
 */
static void *move(struct heap *h, void *block, size_t old_size, size_t new_size, uint64_t tag) {
  if ((*header_of(block) & FROM_MALLOC) && new_size > SMALL_MAX) {
    uint64_t *header = realloc(header_of(block), new_size + HEAP_HEADER);
    if (!header) return NULL;
    h->large += cost_of(new_size) - cost_of(old_size);
    *header = tag | FROM_MALLOC;
    return header + 1;
  }
  void *moved = take(h, new_size, tag);
  if (!moved) return NULL;
  memcpy(moved, block, old_size < new_size ? old_size : new_size);
  give(h, block, old_size);
  return moved;
}

/* Shrinks a block. When no smaller block can be allocated, the block stays where it is, because Lua requires
 * that shrinking succeeds; Lua later frees the block with the new size. */
static void keep_length(struct heap *h, const uint64_t *header, int64_t less) {
  *(*header & FROM_MALLOC ? &h->large : &h->in_use) -= less;
}

static void *resize(struct heap *h, void *block, size_t old_size, size_t new_size) {
  int64_t more = cost_of(new_size) - cost_of(old_size);
  uint64_t old_tag = *header_of(block), tag = old_tag;
  if (new_size > old_size) {
    if (refuses(h, more, false)) return NULL;
    if (account_of(h, tag) == &h->accounts[HEAP_NOBODY]) tag = h->account->tag;
  }
  if (old_size <= SMALL_MAX && more == 0) return block;
  void *moved = move(h, block, old_size, new_size, tag);
  if (!moved) {
    if (new_size > old_size) return NULL;
    keep_length(h, header_of(block), -more);
    moved = block;
  }
  account_of(h, old_tag)->bytes -= cost_of(old_size);
  account_of(h, tag)->bytes += cost_of(new_size);
  return moved;
}

void *heap_alloc(void *ud, void *block, size_t old_size, size_t new_size) {
  struct heap *h = ud;
  if (!block) {
    /* For a new object Lua passes its type as the old size.  Buffers pass 0, and so do arrays. */
    return new_size ? allocate(h, new_size, old_size != 0) : NULL;
  }
  if (new_size) return resize(h, block, old_size, new_size);
  release(h, block, old_size);
  return NULL;
}
