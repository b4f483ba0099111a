/* string.find, match, gmatch and rep.  Lua's own functions do the light searches, and raise the errors of
 * arguments; the other searches go in steps (pattern.h), between which the process may yield.
 *
 * Stack of a search: the arguments, then the search. */
#include "vm/stdlib/yielding.h"

#include "vm/stdlib/pattern.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>

enum { ORIGINAL = 1 };
enum search_kind { FIND, MATCH };

static int original(lua_State *L) {
  return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
}

/* Are both arguments strings or numbers?  Numbers become strings in their place, as luaL_checkstring makes
 * them. */
static bool has_strings(lua_State *L) {
  return lua_tostring(L, 1) && lua_tostring(L, 2);
}

static bool is_light(lua_State *L) {
  size_t n;
  const char *pattern = lua_tolstring(L, 2, &n);
  return pattern_is_light(pattern, n, lua_rawlen(L, 1));
}

/* Argument 3 as an offset; false when it lies beyond the subject. */
static bool get_start(lua_State *L, size_t *out) {
  lua_Integer len = (lua_Integer)lua_rawlen(L, 1), init = luaL_optinteger(L, 3, 1);
  if (init < 0) init = init < -len ? 1 : len + init + 1;
  *out = (size_t)(init > 0 ? init - 1 : 0);
  return *out <= (size_t)len;
}

/* --- find and match --- */

static int search(lua_State *L, int status, lua_KContext kind) {
  (void)status;
  struct pattern *m = lua_touserdata(L, -1);
  switch (pattern_run(L, m)) {
  case PATTERN_PAUSED: return lua_yieldk(L, 0, kind, search);
  case PATTERN_NONE: lua_pushnil(L); return 1;
  case PATTERN_FOUND: break;
  }
  if (kind == MATCH) return pattern_push_captures(L, m, true);
  lua_pushinteger(L, (lua_Integer)pattern_match_from(m) + 1);
  lua_pushinteger(L, (lua_Integer)pattern_match_to(m));
  return 2 + pattern_push_captures(L, m, false);
}

static int begin(lua_State *L, enum search_kind kind) {
  size_t at;
  if (!has_strings(L) || is_light(L)) return original(L);
  if (!get_start(L, &at)) {
    lua_pushnil(L);
    return 1;
  }
  lua_settop(L, 2);
  pattern_from(pattern_push(L, 1, 2, true), at);
  return search(L, LUA_OK, kind);
}

/* Searches for plain text with memmem, which takes linear time; Lua's own search does not. */
static int find_plain(lua_State *L) {
  size_t at, len, n;
  const char *s = lua_tolstring(L, 1, &len), *what = lua_tolstring(L, 2, &n), *found = NULL;
  if (get_start(L, &at)) found = n ? memmem(s + at, len - at, what, n) : s + at;
  if (!found) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, found - s + 1);
  lua_pushinteger(L, found - s + (lua_Integer)n);
  return 2;
}

static bool has_magic(lua_State *L) {
  size_t n;
  const char *p = lua_tolstring(L, 2, &n);
  for (size_t i = 0; i < n; i++)
    if (p[i] && strchr("^$*+?.([%-", p[i])) return true;
  return false;
}

static int find(lua_State *L) {
  if (has_strings(L) && (lua_toboolean(L, 4) || !has_magic(L))) return find_plain(L);
  return begin(L, FIND);
}

static int match(lua_State *L) {
  return begin(L, MATCH);
}

/* --- gmatch --- */

/* Upvalues of the iterator of gmatch. */
enum { SUBJECT = 1, PATTERN, SEARCH, AT, LAST };

static int next_match(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  struct pattern *m = lua_touserdata(L, lua_upvalueindex(SEARCH));
  for (;;) {
    switch (pattern_run(L, m)) {
    case PATTERN_PAUSED: return lua_yieldk(L, 0, 0, next_match);
    case PATTERN_NONE: return 0;
    case PATTERN_FOUND: break;
    }
    lua_Integer from = (lua_Integer)pattern_match_from(m), to = (lua_Integer)pattern_match_to(m);
    if (to != lua_tointeger(L, lua_upvalueindex(LAST))) {
      lua_pushinteger(L, to);
      lua_copy(L, -1, lua_upvalueindex(LAST));
      lua_replace(L, lua_upvalueindex(AT));
      return pattern_push_captures(L, m, true);
    }
    if ((size_t)from == lua_rawlen(L, lua_upvalueindex(SUBJECT))) return 0;
    pattern_from(m, (size_t)from + 1); /* an empty match at the end of the last match does not count */
  }
}

static int iterate(lua_State *L) {
  size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(AT));
  if (at > lua_rawlen(L, lua_upvalueindex(SUBJECT))) return 0;
  pattern_from(lua_touserdata(L, lua_upvalueindex(SEARCH)), at);
  return next_match(L, LUA_OK, 0);
}

static int gmatch(lua_State *L) {
  size_t at;
  if (!has_strings(L) || is_light(L)) return original(L);
  if (!get_start(L, &at)) at = lua_rawlen(L, 1) + 1;
  lua_settop(L, 2);
  pattern_push(L, 1, 2, false);
  lua_pushinteger(L, (lua_Integer)at);
  lua_pushinteger(L, -1);
  lua_pushcclosure(L, iterate, LAST);
  return 1;
}

/* --- rep --- */

/* An empty string repeated is empty.  Lua's own function would loop over all repetitions. */
static int rep(lua_State *L) {
  bool plain = lua_type(L, 1) == LUA_TSTRING && (lua_isnoneornil(L, 3) || lua_type(L, 3) == LUA_TSTRING);
  int counted;
  lua_tointegerx(L, 2, &counted);
  if (!plain || !counted || lua_rawlen(L, 1) > 0 || lua_rawlen(L, 3) > 0) return original(L);
  lua_pushliteral(L, "");
  return 1;
}

void yielding_find(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"find", find}, {"match", match}, {"gmatch", gmatch}, {"rep", rep}, {NULL, NULL}};
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_getfield(L, -1, f->name);
    lua_pushcclosure(L, f->func, 1);
    lua_setfield(L, -2, f->name);
  }
}
