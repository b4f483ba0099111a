/* string.upper, lower, reverse, sub and rep, and utf8.offset: of long strings they are made in pieces.
 * string.byte, pack, packsize and unpack, and utf8.codepoint: their work is bounded. */
#include "vm/stdlib/yielding.h"

#include "vm/lua/pieces.h"
#include "vm/lua/yield.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { ORIGINAL = 1 };

static int original(lua_State *L) {
  return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
}

static bool is_long(lua_State *L, int arg) {
  return lua_type(L, arg) == LUA_TSTRING && lua_rawlen(L, arg) > PIECE;
}

/* --- strings whose bytes follow from those of another one ---
 * Stack: the string, another one or nil, the pieces. */

enum { TEXT = 1, OTHER, PIECES, FROM };

/* Writes the next n bytes. */
typedef void fill(lua_State *L, struct pieces *p, const char *text, size_t n);

static void fill_upper(lua_State *L, struct pieces *p, const char *text, size_t n) {
  (void)L;
  for (size_t i = p->at; i < p->at + n; i++) p->bytes[i] = (char)toupper((unsigned char)text[i]);
}

static void fill_lower(lua_State *L, struct pieces *p, const char *text, size_t n) {
  (void)L;
  for (size_t i = p->at; i < p->at + n; i++) p->bytes[i] = (char)tolower((unsigned char)text[i]);
}

static void fill_reverse(lua_State *L, struct pieces *p, const char *text, size_t n) {
  (void)L;
  for (size_t i = p->at; i < p->at + n; i++) p->bytes[i] = text[p->len - 1 - i];
}

static void fill_sub(lua_State *L, struct pieces *p, const char *text, size_t n) {
  memcpy(p->bytes + p->at, text + lua_tointeger(L, FROM) + p->at, n);
}

static int fill_on(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct pieces *p = lua_touserdata(L, PIECES);
  const char *text = lua_tostring(L, TEXT);
  fill *step = (fill *)context;
  while (p->at < p->len) {
    size_t n = pieces_next(p);
    step(L, p, text, n);
    p->at += n;
    if (p->at < p->len && yield_due(L)) return lua_yieldk(L, 0, context, fill_on);
  }
  pieces_finish(L, PIECES);
  lua_settop(L, PIECES);
  return 1;
}

static int map(lua_State *L, fill *step) {
  if (!is_long(L, TEXT)) return original(L);
  lua_settop(L, OTHER);
  pieces_push(L, lua_rawlen(L, TEXT));
  return fill_on(L, LUA_OK, (lua_KContext)step);
}

static int upper(lua_State *L) {
  return map(L, fill_upper);
}
static int lower(lua_State *L) {
  return map(L, fill_lower);
}
static int reverse(lua_State *L) {
  return map(L, fill_reverse);
}

/* --- sub --- */

static int sub(lua_State *L) {
  size_t len;
  const char *s = luaL_checklstring(L, TEXT, &len);
  lua_Integer n = (lua_Integer)len, i = luaL_checkinteger(L, 2), j = luaL_optinteger(L, 3, -1);
  if (i < 0) i = i < -n ? 1 : n + i + 1;
  if (i == 0) i = 1;
  if (j < 0) j = j < -n ? 0 : n + j + 1;
  if (j > n) j = n;
  size_t got = i <= j ? (size_t)(j - i + 1) : 0;
  if (got <= PIECE || got == len) {
    if (got == len) {
      lua_pushvalue(L, TEXT);
    } else {
      lua_pushlstring(L, s + i - 1, got);
    }
    return 1;
  }
  lua_settop(L, OTHER);
  pieces_push(L, got);
  lua_pushinteger(L, i - 1);
  return fill_on(L, LUA_OK, (lua_KContext)fill_sub);
}

/* --- rep --- */

/* The result repeats its first `period` bytes, the string and the separator: what is there already is the
 * source of what follows. */
static void fill_rep(lua_State *L, struct pieces *p, const char *text, size_t n) {
  size_t len, m;
  const char *between = lua_tolstring(L, OTHER, &m);
  len = lua_rawlen(L, TEXT);
  for (size_t end = p->at + n, at = p->at, part; at < end; at += part) {
    size_t place = at % (len + m), left = end - at;
    const char *from = p->bytes + place;
    part = at - place;
    if (at < len)
      from = text + at, part = len - at;
    else if (at < len + m)
      from = between + (at - len), part = len + m - at;
    if (part > left) part = left;
    memcpy(p->bytes + at, from, part);
  }
}

/* Lua's own function repeats an empty string as often as it is told to, and raises the errors. */
static int rep(lua_State *L) {
  int counted;
  lua_Integer n = lua_tointegerx(L, 2, &counted);
  bool plain = lua_tostring(L, TEXT) && counted && (lua_isnoneornil(L, 3) || lua_tostring(L, 3));
  if (!plain || n <= 0) return original(L);
  size_t m = lua_rawlen(L, 3), period = lua_rawlen(L, TEXT) + m;
  if (period == 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  if (period > SIZE_MAX / 2 / (size_t)n || period * (size_t)n <= PIECE) return original(L);
  lua_settop(L, 3);
  lua_remove(L, 2);
  if (lua_isnil(L, OTHER)) {
    lua_pushliteral(L, "");
    lua_replace(L, OTHER);
  }
  pieces_push(L, period * (size_t)n - m);
  return fill_on(L, LUA_OK, (lua_KContext)fill_rep);
}

/* --- bounds --- */

enum { FORMAT_MAX = 256 << 10 }; /* bytes of a format of string.pack; reading it takes up to 10 ns a byte */

/* pack, packsize and unpack. */
static int pack(lua_State *L) {
  if (lua_type(L, 1) == LUA_TSTRING && lua_rawlen(L, 1) > FORMAT_MAX)
    return luaL_argerror(L, 1, lua_pushfstring(L, "a format may have %d bytes", FORMAT_MAX));
  return original(L);
}

/* byte and codepoint return up to as many values as there are bytes from argument 2 to argument 3. */
static int values(lua_State *L) {
  if (!is_long(L, 1) || lua_isnoneornil(L, 3)) return original(L);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1), i = luaL_optinteger(L, 2, 1), j = luaL_checkinteger(L, 3);
  if (i < 0) i = i < -n ? 1 : n + i + 1;
  if (j < 0) j = j < -n ? 0 : n + j + 1;
  if (j > n) j = n;
  if (j - i >= YIELDING_VALUES) return luaL_error(L, "string slice too long");
  return original(L);
}

/* --- utf8.offset --- */

static bool continues(const char *s, lua_Integer i) {
  return ((unsigned char)s[i] & 0xC0) == 0x80;
}

/* Stack: the string, and where the search is, as an offset.  context: how many characters are left; it
 * becomes 0 as the character is found.  Each step of the search looks at one byte. */
static int offset_on(lua_State *L, int status, lua_KContext left) {
  (void)status;
  const char *s = lua_tostring(L, 1);
  lua_Integer at = lua_tointeger(L, 2), len = (lua_Integer)lua_rawlen(L, 1);
  int steps = PIECE;
  for (; left < 0 && at > 0 && steps > 0; steps--) at--, left += at == 0 || !continues(s, at);
  for (; left > 0 && at < len && steps > 0; steps--) left -= !continues(s, ++at);
  if (left == 0 || at == 0 || at == len) {
    if (left == 0)
      lua_pushinteger(L, at + 1);
    else
      lua_pushnil(L);
    return 1;
  }
  lua_settop(L, 1);
  lua_pushinteger(L, at);
  return yield_due(L) ? lua_yieldk(L, 0, left, offset_on) : offset_on(L, LUA_OK, left);
}

/* Lua's own function raises the errors, and finds the begin of a character (n is 0). */
static int offset(lua_State *L) {
  int counted, placed = 1;
  if (!is_long(L, 1)) return original(L);
  lua_Integer n = lua_tointegerx(L, 2, &counted), len = (lua_Integer)lua_rawlen(L, 1);
  lua_Integer i = lua_isnoneornil(L, 3) ? (n >= 0 ? 1 : len + 1) : lua_tointegerx(L, 3, &placed);
  if (i < 0) i = i < -len ? 0 : len + i + 1;
  if (!counted || !placed || n == 0 || i < 1 || i > len + 1 || continues(lua_tostring(L, 1), i - 1))
    return original(L);
  lua_settop(L, 1);
  lua_pushinteger(L, i - 1);
  return offset_on(L, LUA_OK, n > 0 ? n - 1 : n);
}

/* --- */

static void replace(lua_State *L, const luaL_Reg *functions) {
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_getfield(L, -1, f->name);
    lua_pushcclosure(L, f->func, 1);
    lua_setfield(L, -2, f->name);
  }
}

void yielding_strings(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"upper", upper}, {"lower", lower},   {"reverse", reverse}, {"sub", sub}, {"byte", values},
      {"pack", pack},   {"packsize", pack}, {"unpack", pack},     {"rep", rep}, {NULL, NULL}};
  replace(L, functions);
}

void yielding_offset(lua_State *L) {
  static const luaL_Reg functions[] = {{"offset", offset}, {"codepoint", values}, {NULL, NULL}};
  replace(L, functions);
}
