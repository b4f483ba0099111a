/* The allocator of an isolate: whose account a block is charged to, the limit, and what returns to the
 * kernel. */
#include "tap.h"

#include "vm/process/heap.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20, NEW = 5 /* the type of a new object, as Lua passes it; 0: a buffer */ };

static int64_t sum(const struct heap *h) {
  int64_t all = 0;
  for (uint32_t i = 0; i < h->accounts_len; i++) all += h->accounts[i].bytes;
  return all;
}

static bool sound(const struct heap *h) {
  for (uint32_t i = 0; i < h->accounts_len; i++)
    if (h->accounts[i].bytes < 0) return false;
  return sum(h) == heap_total(h);
}

static void run_as(struct heap *h, uint32_t slot) {
  if (!heap_open_account(h, slot)) abort();
  heap_enter(h, HEAP_SLOT + slot);
  heap_set_limit(h, 1 * MIB);
}

static int64_t held(const struct heap *h, uint32_t slot) {
  return heap_held(h, HEAP_SLOT + slot);
}

static void test_owners(void) {
  struct heap h;
  heap_init(&h);
  char *small = heap_alloc(&h, NULL, NEW, 40);
  memset(small, 7, 40);
  small = heap_alloc(&h, small, 40, 4000);
  ok(small && small[0] == 7 && small[39] == 7, "a block that grows from small to large keeps its bytes");
  small = heap_alloc(&h, small, 4000, 16);
  ok(small && small[15] == 7, "and one that shrinks");
  heap_alloc(&h, small, 16, 0);
  ok(heap_total(&h) == 0 && sound(&h), "what is freed is not held");

  run_as(&h, 0);
  void *block = heap_alloc(&h, NULL, NEW, 1000);
  run_as(&h, 1);
  block = heap_alloc(&h, block, 1000, 5000);
  ok(held(&h, 0) >= 5000 && held(&h, 1) == 0, "a block stays its owner's, whoever makes it longer");
  heap_alloc(&h, block, 5000, 0);
  ok(held(&h, 0) == 0 && held(&h, 1) == 0 && sound(&h), "and is credited to its owner, whoever frees it");

  run_as(&h, 0);
  block = heap_alloc(&h, NULL, NEW, 5000);
  heap_close_account(&h, 0);
  ok(held(&h, 0) == 0 && heap_held(&h, HEAP_NOBODY) >= 5000, "what a process leaves is nobody's");
  run_as(&h, 0);
  void *other = heap_alloc(&h, NULL, NEW, 300);
  block = heap_alloc(&h, block, 5000, 4000);
  ok(held(&h, 0) < 400, "the slot's next process does not answer for it,");
  block = heap_alloc(&h, block, 4000, 6000);
  ok(held(&h, 0) > 6000 && heap_held(&h, HEAP_NOBODY) == 0, "unless it makes it longer");
  heap_alloc(&h, block, 6000, 0);
  heap_alloc(&h, other, 300, 0);
  ok(heap_total(&h) == 0 && sound(&h), "the accounts are empty in the end");
  heap_finish(&h);
}

static void test_limit(void) {
  struct heap h;
  heap_init(&h);
  run_as(&h, 0);
  void *alive = heap_alloc(&h, NULL, NEW, MIB / 2), *garbage = heap_alloc(&h, NULL, NEW, MIB / 2 - 64);
  ok(alive && garbage && !heap_alloc(&h, NULL, NEW, MIB / 4) && !h.exceeded,
     "beyond the limit a request is refused, so that Lua collects");
  heap_alloc(&h, garbage, MIB / 2 - 64, 0);
  garbage = heap_alloc(&h, NULL, NEW, MIB / 4);
  ok(garbage && !h.exceeded, "and granted when that has made room");
  ok(!heap_alloc(&h, NULL, NEW, MIB / 2) && !heap_alloc(&h, NULL, NEW, MIB / 2) && h.exceeded,
     "when it has not, the process is over its limit");
  h.exceeded = h.refused = false;
  void *buffer = heap_alloc(&h, NULL, 0, MIB - 64);
  ok(buffer && heap_is_over(&h, false),
     "a buffer, which does not ask again, is granted up to twice the limit,");
  ok(!heap_alloc(&h, NULL, 0, 64) && !h.exceeded, "but no second one");
  h.refused = false;
  ok(!heap_alloc(&h, NULL, NEW, 2 * MIB) && h.exceeded, "more than the limit is refused at once");
  h.exceeded = h.refused = false;
  size_t longest = INT64_MAX - HEAP_HEADER; /* that Lua asks for, as string.rep("x", math.maxinteger - 8) */
  ok(!heap_alloc(&h, NULL, 0, longest) && h.exceeded, "and so is the longest block");
  run_as(&h, 1);
  void *free_of_it = heap_alloc(&h, NULL, NEW, MIB - 64);
  ok(free_of_it, "another process has its own limit");
  heap_alloc(&h, alive, MIB / 2, 0);
  heap_alloc(&h, garbage, MIB / 4, 0);
  heap_alloc(&h, buffer, MIB - 64, 0);
  heap_alloc(&h, free_of_it, MIB - 64, 0);
  ok(heap_total(&h) == 0 && sound(&h), "the accounts are empty in the end");
  heap_finish(&h);
}

static void trim(struct heap *h) {
  while (!heap_trim(h, 1000)) {
  }
}

/* Random blocks, made, changed and freed by random processes that end at random. */
static void test_storm(void) {
  enum { SLOTS = 40, BLOCKS = 3000, STEPS = 400000 };
  static struct {
    char *at;
    size_t n;
    unsigned char fill;
  } blocks[BLOCKS];
  struct heap h;
  int bad = 0, trimmed = 0;
  heap_init(&h);
  for (int step = 0; step < STEPS; step++) {
    long i = random() % BLOCKS;
    size_t n = random() % 50 ? (size_t)random() % 300 : (size_t)random() % 5000;
    uint32_t slot = (uint32_t)random() % SLOTS;
    run_as(&h, slot);
    heap_enter(&h, random() % 10 ? HEAP_SLOT + slot : HEAP_ISOLATE);
    char *at = blocks[i].at;
    size_t first = blocks[i].n;
    if (at) bad += at[0] != (char)blocks[i].fill || at[first - 1] != (char)blocks[i].fill;
    if (at && n == 0) n = 1;
    if (at && random() % 2) n = 0;
    if (!at && n == 0) continue;
    at = heap_alloc(&h, at, at ? first : NEW, n);
    if (n && first) bad += at[0] != (char)blocks[i].fill;
    blocks[i].at = at, blocks[i].n = n, blocks[i].fill = (unsigned char)random();
    if (n) memset(at, blocks[i].fill, n);
    if (random() % 100 == 0) heap_close_account(&h, slot);
    if (random() % 4 == 0) trimmed += heap_trim(&h, 50); /* a step of trimming falls between any two others */
    if (step % 1000 == 0) bad += !sound(&h);
  }
  ok(!bad, "%d random steps of %d processes leave blocks whole and accounts right", STEPS, SLOTS);
  ok(trimmed > 10, "while trimming ended %d times", trimmed);
  for (int i = 0; i < BLOCKS; i++)
    if (blocks[i].at) heap_alloc(&h, blocks[i].at, blocks[i].n, 0);
  ok(heap_total(&h) == 0 && h.in_use == 0 && sound(&h), "the accounts are empty in the end");
  trim(&h);
  trim(&h);
  ok(h.mapped <= 256 << 10, "and at most one chunk is left (%ld bytes)", (long)h.mapped);
  heap_finish(&h);
}

/* One block in a thousand stays: only the pages of those stay, and what is freed in the end goes, too. */
static void test_survivors(void) {
  enum { MANY = 40000, ONE_IN = 1000 };
  static char *blocks[MANY];
  struct heap h;
  int bad = 0;
  heap_init(&h);
  for (int i = 0; i < MANY; i++) blocks[i] = heap_alloc(&h, NULL, NEW, 200), blocks[i][0] = (char)i;
  int64_t full = h.mapped;
  for (int i = 0; i < MANY; i++)
    if (i % ONE_IN) heap_alloc(&h, blocks[i], 200, 0);
  ok(full == 0 || heap_may_trim(&h), "when most blocks are free, trimming pays");
  trim(&h);
  for (int i = 0; i < MANY; i += ONE_IN) bad += blocks[i][0] != (char)i;
  ok(!bad && h.mapped <= full / 10 && !heap_may_trim(&h), "trimming leaves %ld KB of %ld KB",
     (long)h.mapped / 1024, (long)full / 1024);
  char *more = heap_alloc(&h, NULL, NEW, 200);
  heap_alloc(&h, more, 200, 0);
  for (int i = 0; i < MANY; i += ONE_IN) heap_alloc(&h, blocks[i], 200, 0);
  trim(&h);
  ok(heap_total(&h) == 0 && h.mapped <= 256 << 10, "in the end %ld KB are left", (long)h.mapped / 1024);
  heap_finish(&h);
}

/* --- the same with Lua --- */

static const char program[] =
    "local me, other = ...\n"
    "local t = {}\n"
    "for i = 1, 300 do\n"
    "  t[i] = {i, ('long string %d '):rep(20):format(i), function() return t, i end}\n"
    "  shared[i] = t[i]\n"
    "  if other[i] and i % 3 == 0 then other[i][4] = t[i] end\n"
    "  if i % 50 == 0 then coroutine.yield(t) end\n"
    "end\n"
    "return t\n";

/* Three coroutines whose tables refer to each other take turns, and collector steps run in all of them. */
static void test_lua(void) {
  enum { PROCESSES = 3, ROUNDS = 60 };
  struct heap h;
  int bad = 0, results;
  heap_init(&h);
  lua_State *L = lua_newstate(heap_alloc, &h), *co[PROCESSES] = {NULL};
  luaL_openlibs(L);
  lua_newtable(L);
  lua_setglobal(L, "shared");
  luaL_loadstring(L,
                  "local format = string.format function string.format(s, i) return (s:gsub('%%d', i)) end");
  lua_call(L, 0, 0);
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t k = (uint32_t)round % PROCESSES;
    heap_enter(&h, HEAP_ISOLATE);
    if (!co[k]) {
      lua_settop(L, 0);
      heap_enter(&h, HEAP_NOBODY);
      co[k] = lua_newthread(L);
      lua_setfield(L, LUA_REGISTRYINDEX, k == 0 ? "a" : k == 1 ? "b" : "c");
      run_as(&h, k);
      heap_enter(&h, HEAP_SLOT + k);
      bad += luaL_loadstring(co[k], program) != LUA_OK;
      lua_newtable(co[k]);
      lua_getglobal(co[k], "shared");
    }
    heap_enter(&h, HEAP_SLOT + k);
    int status = lua_resume(co[k], L, lua_status(co[k]) == LUA_YIELD ? 0 : 2, &results);
    bad += status > LUA_YIELD;
    if (status == LUA_YIELD) lua_settop(co[k], 0);
    heap_enter(&h, HEAP_ISOLATE);
    bad += !sound(&h);
    if (status == LUA_OK) heap_close_account(&h, k), co[k] = NULL;
    if (round % 7 == 0) lua_gc(L, LUA_GCCOLLECT), bad += !sound(&h);
    heap_trim(&h, 1000);
  }
  ok(!bad, "coroutines that share tables and closures leave the accounts right");
  lua_close(L);
  ok(heap_total(&h) == 0 && sound(&h), "and empty when the state is closed");
  heap_finish(&h);
}

int main(void) {
  srandom(7);
  test_owners();
  test_limit();
  test_storm();
  test_survivors();
  test_lua();
  return tap_end();
}
