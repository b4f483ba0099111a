/* Invariant: `block` is a block of the Lua state's allocator that no object uses.  It has the length that Lua
 * asks for when it makes a string of len bytes, and `bytes` points to where the bytes of that string lie.
 *
 * To make the string, pieces_finish lends Lua an allocator that answers the request for the string's block
 * with this block.  Lua then copies the bytes to where they are already, which memcpy does not do for a long
 * string.  Where the bytes of a string lie in its block is found out by a sample, so another Lua may place
 * them otherwise. */
#include "vm/lua/pieces.h"

#include <lauxlib.h>
#include <stdlib.h>

enum { SAMPLE = 2000 };

/* An allocator that passes requests on, but for the next block of a string that has at least `size` bytes: it
 * notes that block, or answers with `block`. */
struct allocator {
  lua_Alloc alloc;
  void *ud;
  size_t size;
  char *block;
  bool gives; /* answers with block */
  bool done;
};

static void *allocate(void *ud, void *old, size_t old_size, size_t new_size) {
  struct allocator *a = ud;
  bool string = !old && old_size == LUA_TSTRING && !a->done;
  if (string && a->gives && new_size == a->size) {
    a->done = true;
    return a->block;
  }
  void *block = a->alloc(a->ud, old, old_size, new_size);
  if (string && !a->gives && new_size >= a->size && block) {
    a->size = new_size;
    a->block = block;
    a->done = true;
  }
  return block;
}

struct text {
  const char *bytes;
  size_t len;
};

static int push_text(lua_State *L) {
  const struct text *t = lua_touserdata(L, 1);
  lua_pushlstring(L, t->bytes, t->len);
  return 1;
}

/* Pushes the string with another allocator in place.  Raises when memory runs out. */
static void push_with(lua_State *L, struct allocator *a, struct text t) {
  a->alloc = lua_getallocf(L, &a->ud);
  luaL_checkstack(L, 4, NULL);
  lua_pushcfunction(L, push_text);
  lua_pushlightuserdata(L, &t);
  lua_setallocf(L, allocate, a);
  int status = lua_pcall(L, 1, 1, 0);
  lua_setallocf(L, a->alloc, a->ud);
  if (status != LUA_OK) lua_error(L);
}

/* Sets the size of the block of a string of p->len bytes, and the offset of its bytes. */
static void measure(lua_State *L, struct pieces *p) {
  static const char zeros[SAMPLE];
  struct allocator a = {.size = SAMPLE};
  push_with(L, &a, (struct text){zeros, SAMPLE});
  p->offset = (size_t)(lua_tostring(L, -1) - a.block);
  p->size = a.size - SAMPLE + p->len;
  lua_pop(L, 1);
}

static int drop(lua_State *L) {
  struct pieces *p = lua_touserdata(L, 1);
  if (p->block) p->alloc(p->ud, p->block, p->size, 0);
  p->block = NULL;
  return 0;
}

static void *ask(const struct pieces *p) {
  return p->alloc(p->ud, NULL, LUA_TSTRING, p->size);
}

struct pieces *pieces_push(lua_State *L, size_t len) {
  luaL_checkstack(L, 6, NULL);
  struct pieces *p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = (struct pieces){.len = len};
  if (luaL_newmetatable(L, "pieces")) {
    lua_pushcfunction(L, drop);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  measure(L, p);
  p->alloc = lua_getallocf(L, &p->ud);
  p->block = ask(p);
  if (!p->block) { /* as Lua does: collect, and ask again */
    lua_gc(L, LUA_GCCOLLECT);
    p->block = ask(p);
  }
  if (!p->block) {
    lua_pushliteral(L, "not enough memory");
    lua_error(L);
  }
  p->bytes = p->block + p->offset;
  return p;
}

void pieces_finish(lua_State *L, int index) {
  index = lua_absindex(L, index);
  struct pieces *p = lua_touserdata(L, index);
  struct allocator a = {.size = p->size, .block = p->block, .gives = true};
  push_with(L, &a, (struct text){p->bytes, p->len});
  if (a.done) p->block = NULL;
  lua_replace(L, index);
}
