/* heap: the allocator of an isolate's lua_State, and an account for each process of the isolate.  Called by
 * the thread that runs the isolate.
 *
 * Small blocks come from free lists, one for each size class, without a lock; large blocks from malloc.  The
 * header of a block names its owner, the process that ran when the block was made.  The owner's account is
 * charged for the block, and credited when the block is freed, whoever runs then.  A block that grows keeps
 * its owner.  When a process ends, what it owned passes to HEAP_NOBODY, until the collector frees it; a block
 * of nobody that grows passes to the process that runs.  Accounts are never negative, and their sum is
 * heap_total.
 *
 * Two things are shared, and belong to the process that made them first: short strings (up to 40 bytes), and
 * the code of functions.  Long strings that several receivers of one message share belong to HEAP_MULTICAST
 * (multicast.h).
 *
 * The limit.  A process may hold `limit` bytes.  It may also have garbage that is not yet collected, so an
 * allocation that brings its account over 17/16 of the limit is refused first; Lua then collects, and asks
 * again.  When the account is then over 33/32 of the limit, `exceeded` becomes true.  The distance between
 * the two bounds is a pause between full collections: they come at most once in limit/32 allocated bytes.
 * Lua's buffers (string.rep, table.concat) do not ask again, so a request that may come from one is granted
 * up to twice the limit; heap_is_over then is true at the end of the process's turn. */
#ifndef VM_PROCESS_HEAP_H
#define VM_PROCESS_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HEAP_CLASS = 8, HEAP_HEADER = 8, HEAP_SMALL_MAX = 1024 };
enum { HEAP_CLASSES = (HEAP_SMALL_MAX + HEAP_HEADER) / HEAP_CLASS + 1 };

/* The first accounts; that of the process in slot s is HEAP_SLOT + s. */
enum heap_owner { HEAP_ISOLATE, HEAP_NOBODY, HEAP_MULTICAST, HEAP_SLOT };

struct heap_account {
  uint64_t tag; /* in the headers of the blocks of its present owner */
  int64_t bytes;
};

enum heap_trim { HEAP_TRIM_NONE, HEAP_TRIM_COUNTS, HEAP_TRIM_SORTS };

struct heap {
  void *free[HEAP_CLASSES];
  char *at, *end; /* the unused part of the newest chunk */
  char *paged;    /* end of the part for which page_in has asked for pages */
  struct chunk *chunks;
  size_t pages;    /* bytes for which page_in asks next */
  int64_t mapped;  /* bytes of all chunks */
  int64_t in_use;  /* bytes of blocks in chunks that are handed out, with their headers */
  int64_t large;   /* and of blocks from malloc */
  int64_t outside; /* bytes charged by heap_charge */
  int64_t limit;   /* of the process that runs; owners before HEAP_SLOT have none */
  int64_t bound;   /* the limit and a sixteenth */
  uint32_t owner;  /* the account that is charged now */
  uint32_t accounts_len;
  struct heap_account *account; /* the same */
  struct heap_account *accounts;
  struct heap_account first[HEAP_SLOT];
  bool refused;  /* the last request was refused: the next one follows a full collection */
  bool exceeded; /* the running process is over its limit, and collecting did not help */

  enum heap_trim trim; /* what heap_trim does next */
  uint32_t trim_class;
  void *trim_at;
  void *limbo[HEAP_CLASSES]; /* free blocks that heap_trim looks at */
  int64_t trim_due;          /* free bytes in chunks from which on trimming pays */
};

void heap_init(struct heap *h);

/* After lua_close. */
void heap_finish(struct heap *h);

/* Makes the account of a new slot; false when memory ran out. */
bool heap_open_account(struct heap *h, uint32_t slot);

/* The process in the slot has ended: its blocks pass to nobody, and the account begins anew. */
void heap_close_account(struct heap *h, uint32_t slot);

/* Whom to charge from now on. */
static inline void heap_enter(struct heap *h, uint32_t owner) {
  h->owner = owner;
  h->account = &h->accounts[owner];
}

/* The limit of the processes that run from now on. */
static inline void heap_set_limit(struct heap *h, int64_t limit) {
  h->limit = limit < INT64_MAX / 2 ? limit : INT64_MAX / 2;
  h->bound = h->limit + (h->limit >> 4);
}

/* All bytes that are charged to the accounts. */
static inline int64_t heap_total(const struct heap *h) {
  return h->in_use + h->large + h->outside;
}

/* Bytes that the heap has from the kernel and from malloc. */
static inline int64_t heap_reserved(const struct heap *h) {
  return h->mapped - (h->end - h->paged) + h->large;
}

static inline int64_t heap_held(const struct heap *h, uint32_t owner) {
  return h->accounts[owner].bytes;
}

/* Bytes of a process that are kept outside of the heap: adds them to an account, or (negative) takes them
 * off. */
void heap_charge(struct heap *h, uint32_t owner, int64_t bytes);

/* Is the running process over its limit, before a collection (collected: after one)? */
static inline int64_t heap_bound_collected(const struct heap *h) {
  return h->limit + (h->limit >> 5);
}
static inline bool heap_is_over(const struct heap *h, bool collected) {
  return h->account->bytes > (collected ? heap_bound_collected(h) : h->bound);
}

/* Forgets that a request was refused: whoever asked goes on without it, so the process need not end. */
static inline void heap_forgive(struct heap *h) {
  h->refused = h->exceeded = false;
}

/* Gives chunks without a block in use back to the kernel.  heap_trim does a part of the work, as much as
 * looking at `blocks` blocks takes, and returns true when there is nothing more to do; other calls may come
 * in between. */
bool heap_may_trim(const struct heap *h);
bool heap_trim(struct heap *h, int blocks);

/* A lua_Alloc whose ud is the heap. */
void *heap_alloc(void *ud, void *block, size_t old_size, size_t new_size);

#endif
