/* string.find, match and gmatch.  Lua's own functions do the light searches, and raise the errors of
 * arguments; the other searches go in steps (pattern.h), between which the process may yield.
 *
 * Stack of a search: the arguments, then the search. */
#include "vm/stdlib/yielding.h"

#include "vm/lua/pieces.h"
#include "vm/lua/yield.h"
#include "vm/stdlib/pattern.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
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

enum {
  WINDOW = 4 * PIECE, /* bytes that memmem searches at a time */
  HEAD = PIECE,       /* of a text that is longer, memmem searches for so many bytes of its begin */
  COMPARED = 16 * PIECE
};

/* The offset of the next place in s[at, end) where `head` bytes of the text are; SIZE_MAX: in none. */
static size_t next_place(const char *s, size_t at, size_t end, const char *what, size_t head) {
  const char *found = memmem(s + at, end - at, what, head);
  return found ? (size_t)(found - s) : SIZE_MAX;
}

/* Searches for plain text in steps, each of which searches one window or compares a part of a long text.
 * Stack: subject, text, the offset of the search.  context: the length of the text's begin that is at that
 * offset. */
static int plain_on(lua_State *L, int status, lua_KContext context) {
  (void)status;
  size_t len, n, same = (size_t)context, at = (size_t)lua_tointeger(L, 3);
  const char *s = lua_tolstring(L, 1, &len), *what = lua_tolstring(L, 2, &n);
  size_t head = n < HEAD ? n : HEAD;
  while (n <= len && at <= len - n && (same < n || n == 0)) {
    if (same == 0) {
      size_t end = len - at - head < WINDOW ? len : at + head + WINDOW,
             place = next_place(s, at, end, what, head);
      same = place == SIZE_MAX ? 0 : head;
      at = place == SIZE_MAX ? end - head + 1 : place;
      if (n == 0) break;
    } else {
      size_t part = n - same < COMPARED ? n - same : COMPARED;
      bool equal = memcmp(s + at + same, what + same, part) == 0;
      same = equal ? same + part : 0;
      at += !equal;
    }
    if (same == n || !yield_due(L)) continue;
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)at);
    return lua_yieldk(L, 0, (lua_KContext)same, plain_on);
  }
  if (n > len || at > len - n) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, (lua_Integer)at + 1);
  lua_pushinteger(L, (lua_Integer)at + (lua_Integer)n);
  return 2;
}

/* memmem takes linear time; Lua's own search does not. */
static int find_plain(lua_State *L) {
  size_t at;
  if (!get_start(L, &at)) {
    lua_pushnil(L);
    return 1;
  }
  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)at);
  return plain_on(L, LUA_OK, 0);
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

void yielding_find(lua_State *L) {
  static const luaL_Reg functions[] = {{"find", find}, {"match", match}, {"gmatch", gmatch}, {NULL, NULL}};
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_getfield(L, -1, f->name);
    lua_pushcclosure(L, f->func, 1);
    lua_setfield(L, -2, f->name);
  }
}
