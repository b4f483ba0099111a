/* Each match is found by Lua's own string.find, from where the last one ended; so patterns, captures and
 * errors are Lua's.  What is built lives in a userdata of the process, as nothing of C survives a yield.
 *
 * Stack of a call: 1 subject, 2 pattern, 3 replacement, 4 limit, 5 state; above it what one step needs.
 * Invariant: text holds what becomes of subject[0, at). */
#include "vm/yielding.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Upvalues of gsub. */
enum { ORIGINAL = 1, FIND, INDEX };

static const char index_source[] = "return function(t, key) return t[key] end";

enum { STATE = 5, START, END, CAPTURES };

struct gsub {
  lua_Integer count, limit;
  size_t at, from, to; /* the match: subject[from, to) */
  size_t last;         /* end of the match before; SIZE_MAX: none */
  bool anchored, changed;
  size_t len, size;
  char text[];
};

static struct gsub *state_of(lua_State *L) {
  return lua_touserdata(L, STATE);
}

static struct gsub *grow(lua_State *L, struct gsub *g, size_t more) {
  size_t size = g->size * 2 > g->len + more ? g->size * 2 : g->len + more;
  struct gsub *wide = lua_newuserdatauv(L, sizeof *wide + size, 0);
  memcpy(wide, g, sizeof *g + g->len);
  wide->size = size;
  lua_replace(L, STATE);
  return wide;
}

static void append(lua_State *L, const char *s, size_t n) {
  struct gsub *g = state_of(L);
  if (g->size - g->len < n) g = grow(L, g, n);
  memcpy(g->text + g->len, s, n);
  g->len += n;
}

/* Adds subject[at, to). */
static void keep(lua_State *L, size_t to) {
  struct gsub *g = state_of(L);
  size_t at = g->at;
  g->at = to;
  append(L, lua_tostring(L, 1) + at, to - at);
}

/* Leaves start, end and captures above the state; false when there is no further match.  An error of find
 * stands where gsub was called. */
static bool find(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(FIND));
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_pushinteger(L, (lua_Integer)state_of(L)->at + 1);
  int status = lua_pcall(L, 3, LUA_MULTRET, 0);
  if (status == LUA_ERRRUN) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  if (status != LUA_OK) lua_error(L);
  struct gsub *g = state_of(L);
  if (lua_isnil(L, START)) return false;
  g->from = (size_t)lua_tointeger(L, START) - 1;
  g->to = (size_t)lua_tointeger(L, END);
  return true;
}

/* The next match that counts: an empty one where the last one ended does not. */
static bool next_match(lua_State *L) {
  size_t len = lua_rawlen(L, 1);
  for (;;) {
    lua_settop(L, STATE);
    if (!find(L)) return false;
    const struct gsub *g = state_of(L);
    if (g->to != g->last) return true;
    if (g->at == len) return false;
    keep(L, g->at + 1);
  }
}

static int finish(lua_State *L) {
  lua_settop(L, STATE);
  keep(L, lua_rawlen(L, 1));
  const struct gsub *g = state_of(L);
  if (g->changed) {
    lua_pushlstring(L, g->text, g->len);
  } else {
    lua_pushvalue(L, 1);
  }
  lua_pushinteger(L, g->count);
  return 2;
}

/* Puts the call that asks for the replacement above start and end: returns how many arguments it has. */
static int prepare(lua_State *L) {
  const struct gsub *g = state_of(L);
  bool function = lua_isfunction(L, 3);
  luaL_checkstack(L, 4, "too many captures");
  if (lua_gettop(L) < CAPTURES) lua_pushlstring(L, lua_tostring(L, 1) + g->from, g->to - g->from);
  if (!function) lua_settop(L, CAPTURES);
  lua_pushvalue(L, function ? 3 : lua_upvalueindex(INDEX));
  lua_insert(L, CAPTURES);
  if (!function) {
    lua_pushvalue(L, 3);
    lua_insert(L, CAPTURES + 1);
  }
  return lua_gettop(L) - CAPTURES;
}

/* The replacement is at the top. */
static void replace(lua_State *L) {
  struct gsub *g = state_of(L);
  size_t n;
  if (!lua_toboolean(L, -1)) {
    keep(L, g->to);
  } else if (!lua_isstring(L, -1)) {
    luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  } else {
    const char *s = lua_tolstring(L, -1, &n);
    g->changed = true;
    g->at = g->to;
    append(L, s, n);
  }
  g = state_of(L);
  g->last = g->to;
}

static int replaced(lua_State *L, int status, lua_KContext context);

static int go_on(lua_State *L) {
  struct gsub *g;
  while (g = state_of(L), g->count < g->limit && !(g->anchored && g->count > 0) && next_match(L)) {
    keep(L, state_of(L)->from);
    state_of(L)->count++;
    lua_callk(L, prepare(L), 1, 0, replaced);
    replace(L);
  }
  return finish(L);
}

static int replaced(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  replace(L);
  return go_on(L);
}

/* Is it a replacement that may call?  A table without a metatable is read, no more. */
static bool may_call(lua_State *L, int index) {
  if (lua_isfunction(L, index)) return true;
  if (!lua_istable(L, index) || !lua_getmetatable(L, index)) return false;
  lua_pop(L, 1);
  return true;
}

/* To find, which takes a pattern without magic for plain text, a lone ')' is no error. */
static bool is_misread(const char *pattern) {
  return pattern && strchr(pattern, ')') && !strpbrk(pattern, "^$*+?.([%-");
}

static int gsub(lua_State *L) {
  if (!may_call(L, 3) || is_misread(lua_tostring(L, 2)))
    return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
  size_t len;
  luaL_checklstring(L, 1, &len);
  const char *pattern = luaL_checkstring(L, 2);
  lua_Integer limit = luaL_optinteger(L, 4, (lua_Integer)len + 1);
  lua_settop(L, STATE - 1);
  struct gsub *g = lua_newuserdatauv(L, sizeof *g + len, 0);
  *g = (struct gsub){.limit = limit, .last = SIZE_MAX, .anchored = *pattern == '^', .size = len};
  return go_on(L);
}

void yielding_gsub(lua_State *L) {
  lua_getfield(L, -1, "gsub");
  lua_getfield(L, -2, "find");
  if (luaL_loadbufferx(L, index_source, sizeof index_source - 1, "=gsub", "t") != LUA_OK) lua_error(L);
  lua_call(L, 0, 1);
  lua_pushcclosure(L, gsub, 3);
  lua_setfield(L, -2, "gsub");
}
