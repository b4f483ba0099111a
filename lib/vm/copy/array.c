/* The layout of a table in Lua 5.4.  `alimit` is the length of the array, or, where bit 7 of `flags` is set,
 * a hint for the length operator; then the length is the next power of two.  `lastfree` is NULL while the
 * table has no hash part.  A table is white if it has one of the bits WHITE of `marked`: the collector has
 * not come to it in this cycle, so any value may be stored in it without telling the collector. */
#include "vm/copy/array.h"

#include "vm/process/isolate.h"

#include <string.h>

struct layout {
  void *next;
  uint8_t type, marked, flags, log_nodes;
  uint32_t alimit;
  struct array_slot *array;
  void *node, *lastfree;
};

enum { NOT_REAL = 1 << 7, WHITE = 3 << 3 };

static struct layout *layout_of(lua_State *L, int index) {
  return (struct layout *)(uintptr_t)lua_topointer(L, index);
}

static size_t length(const struct layout *t) {
  size_t n = t->alimit, power = 1;
  if (!(t->flags & NOT_REAL)) return n;
  while (power < n) power *= 2;
  return power;
}

const struct array_slot *array_of_list(const struct isolate *iso, const void *table, size_t n) {
  if (!iso->knows_arrays || n == 0) return NULL;
  const struct layout *t = table;
  size_t len = length(t);
  if (t->lastfree || len < n) return NULL;
  for (size_t i = n; i < len; i++)
    if (!array_is_nil(&t->array[i])) return NULL;
  return t->array;
}

bool array_is_short(const struct isolate *iso, const void *table, size_t most) {
  const struct layout *t = table;
  return iso->knows_arrays && !t->lastfree && t->alimit > 0 && t->alimit <= most;
}

struct array_slot *array_of_new(lua_State *L, const struct isolate *iso, int index, size_t n) {
  if (!iso->knows_arrays || n == 0) return NULL;
  struct layout *t = layout_of(L, index);
  return t->alimit == n ? t->array : NULL;
}

size_t array_is_flat(lua_State *L, const struct isolate *iso, int index, size_t least) {
  enum { FLAT = 1 << LUA_TBOOLEAN | 1 << LUA_TLIGHTUSERDATA | 1 << LUA_TNUMBER | 1 << LUA_TSTRING };
  if (!iso->knows_arrays) return 0;
  const struct layout *t = layout_of(L, index);
  size_t n = t->alimit;
  if (t->flags & NOT_REAL || t->lastfree || n < least) return 0;
  for (size_t i = 0; i < n; i++)
    if (!(FLAT >> (t->array[i].tag & 0x0f) & 1)) return 0;
  return n;
}

bool array_copy(lua_State *L, const struct isolate *iso, int index, size_t n) {
  index = lua_absindex(L, index);
  lua_createtable(L, (int)n, 0);
  struct array_slot *to = array_of_new(L, iso, -1, n);
  const struct layout *t = layout_of(L, -1), *from = layout_of(L, index);
  if (to && t->marked & WHITE && from->alimit == n) {
    memcpy(to, from->array, n * sizeof *to);
    return true;
  }
  lua_pop(L, 1);
  return false;
}

/* The table at the top was made with room for two values, and has 7 and 0.5. */
static bool has_layout(lua_State *L) {
  const struct layout *t = layout_of(L, -1);
  if (t->alimit != 2 || t->flags & NOT_REAL || t->lastfree) return false;
  bool one_white = (t->marked & WHITE) && (t->marked & WHITE) != WHITE;
  if (t->type != LUA_TTABLE || !one_white) return false;
  return t->array[0].tag == ARRAY_INT && t->array[0].i == 7 && t->array[1].tag == ARRAY_FLOAT &&
         t->array[1].d == 0.5;
}

static bool can_fill(lua_State *L) {
  struct layout *t = layout_of(L, -1);
  t->array[1].i = -9;
  t->array[1].tag = ARRAY_INT;
  bool same = lua_rawgeti(L, -1, 2) == LUA_TNUMBER && lua_isinteger(L, -1) && lua_tointeger(L, -1) == -9;
  lua_pop(L, 1);
  return same;
}

static bool shows_nodes(lua_State *L) {
  lua_pushboolean(L, 1);
  lua_setfield(L, -2, "key");
  return layout_of(L, -1)->lastfree;
}

void array_open(lua_State *L, struct isolate *iso) {
  iso->knows_arrays = false;
  if (LUA_VERSION_NUM != 504 || sizeof(void *) != 8 || sizeof(struct array_slot) != 16) return;
  lua_createtable(L, 2, 0);
  lua_pushinteger(L, 7);
  lua_rawseti(L, -2, 1);
  lua_pushnumber(L, 0.5);
  lua_rawseti(L, -2, 2);
  iso->knows_arrays = has_layout(L) && can_fill(L) && shows_nodes(L);
  lua_pop(L, 1);
}
