/* string.gsub.  Lua's own function does the light searches whose replacement calls no function.  For the
 * others the result is built in a userdata, as no C variable survives a yield.
 *
 * Stack of a call: 1 subject, 2 pattern, 3 replacement, 4 limit, 5 state, 6 search, 7 parts; above that the
 * values of one step.  Invariant: the parts (nil: there are none) and then text hold the result for
 * subject[0, at). */
#include "vm/stdlib/yielding.h"

#include "vm/lua/pieces.h"
#include "vm/lua/yield.h"
#include "vm/stdlib/pattern.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Upvalues of gsub. */
enum { ORIGINAL = 1, INDEX };

enum { LEAST = 200 }; /* room in the text for the result from a short subject */

static const char index_source[] = "return function(t, key) return t[key] end";

enum { STATE = 5, SEARCH, PARTS, STEP };

struct gsub {
  lua_Integer count, limit;
  size_t at;
  size_t last; /* end of the match before; SIZE_MAX: none */
  bool changed;
  bool ended; /* there is no further match */
  lua_Integer parts;
  size_t len, size;
  char text[];
};

static struct gsub *state_of(lua_State *L) {
  return lua_touserdata(L, STATE);
}

static struct pattern *search_of(lua_State *L) {
  return lua_touserdata(L, SEARCH);
}

/* Adds a part behind the others. */
static void add_part(lua_State *L, struct gsub *g, const char *s, size_t n) {
  if (lua_isnil(L, PARTS)) {
    lua_newtable(L);
    lua_replace(L, PARTS);
  }
  lua_pushlstring(L, s, n);
  lua_rawseti(L, PARTS, ++g->parts);
}

/* Makes text, which is full, a part. */
static void flush(lua_State *L, struct gsub *g) {
  if (g->len) add_part(L, g, g->text, g->len);
  g->len = 0;
}

static void append(lua_State *L, const char *s, size_t n) {
  struct gsub *g = state_of(L);
  if (g->size - g->len < n) flush(L, g);
  if (g->size < n) {
    add_part(L, g, s, n);
  } else {
    memcpy(g->text + g->len, s, n);
    g->len += n;
  }
}

/* Adds subject[at, to). */
static void keep(lua_State *L, size_t to) {
  struct gsub *g = state_of(L);
  size_t at = g->at;
  g->at = to;
  append(L, lua_tostring(L, 1) + at, to - at);
}

static int joined(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  lua_pushinteger(L, state_of(L)->count);
  return 2;
}

static int join(lua_State *L) {
  return yielding_join(L, NULL, 1, (lua_Integer)lua_rawlen(L, 1));
}

/* Returns the result; all of the subject has been dealt with. */
static int finish(lua_State *L) {
  struct gsub *g = state_of(L);
  if (!g->changed) {
    lua_pushvalue(L, 1);
  } else if (!g->parts) {
    lua_pushlstring(L, g->text, g->len);
  } else {
    flush(L, g);
    lua_pushcfunction(L, join);
    lua_pushvalue(L, PARTS);
    lua_callk(L, 1, 1, 0, joined);
  }
  return joined(L, LUA_OK, 0);
}

/* --- replacements --- */

/* Adds a replacement string, in which %1 is a capture, %0 the match and %% a percent sign. */
static void replace_by_text(lua_State *L) {
  const struct pattern *m = search_of(L);
  size_t len, n;
  const char *text = lua_tolstring(L, 3, &len), *end = text + len;
  for (const char *p; (p = memchr(text, '%', (size_t)(end - text))); text = p + 2) {
    append(L, text, (size_t)(p - text));
    lua_settop(L, PARTS);
    if (p[1] == '%') {
      append(L, p, 1);
      continue;
    }
    if (!isdigit((unsigned char)p[1])) luaL_error(L, "invalid use of '%%' in replacement string");
    if (p[1] == '0') {
      lua_pushlstring(L, lua_tostring(L, 1) + pattern_match_from(m),
                      pattern_match_to(m) - pattern_match_from(m));
    } else if (!pattern_push_capture(L, m, p[1] - '0')) {
      luaL_error(L, "invalid capture index %%%d", p[1] - '0');
    }
    const char *capture = lua_tolstring(L, STEP, &n);
    append(L, capture, n);
  }
  append(L, text, (size_t)(end - text));
  state_of(L)->changed = true;
}

/* Pushes the function that returns the replacement, and its arguments; returns their number. */
static int prepare(lua_State *L) {
  bool function = lua_isfunction(L, 3);
  lua_pushvalue(L, function ? 3 : lua_upvalueindex(INDEX));
  if (function) return pattern_push_captures(L, search_of(L), true);
  lua_pushvalue(L, 3);
  pattern_push_capture(L, search_of(L), 1);
  return 2;
}

/* The replacement that the call returned is at the top; nil or false keeps the match. */
static void replace_by_value(lua_State *L) {
  size_t n;
  if (!lua_toboolean(L, -1)) {
    keep(L, pattern_match_to(search_of(L)));
  } else if (!lua_isstring(L, -1)) {
    luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  } else {
    const char *s = lua_tolstring(L, -1, &n);
    state_of(L)->changed = true;
    append(L, s, n);
  }
}

/* --- the loop --- */

/* After a replacement: the search for the next match begins behind this one. */
static void pass(lua_State *L) {
  struct gsub *g = state_of(L);
  g->at = g->last = pattern_match_to(search_of(L));
  pattern_from(search_of(L), g->at);
  lua_settop(L, PARTS);
}

static int go_on(lua_State *L);

static int resumed(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return go_on(L);
}

static int replaced(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  replace_by_value(L);
  pass(L);
  return go_on(L);
}

/* Does the match that was found count?  An empty match at the end of the last match does not. */
static bool counts(lua_State *L) {
  struct gsub *g = state_of(L);
  if (pattern_match_to(search_of(L)) == g->last) return false;
  g->count++;
  return true;
}

/* Looks for the next match.  Another call after a match was found, or none, has the same result. */
static enum pattern_state search(lua_State *L) {
  struct gsub *g = state_of(L);
  struct pattern *m = search_of(L);
  if (g->ended || g->count >= g->limit || (pattern_is_anchored(m) && g->count > 0)) return PATTERN_NONE;
  enum pattern_state state = pattern_run(L, m);
  g->ended = state == PATTERN_NONE;
  return state;
}

/* Keeps the subject up to the match, or up to its end, in pieces.  False: the process is to yield first. */
static bool catch_up(lua_State *L, size_t to) {
  const struct gsub *g = state_of(L);
  while (to - g->at > PIECE) {
    keep(L, g->at + PIECE);
    if (yield_due(L)) return false;
  }
  keep(L, to);
  return true;
}

/* Replaces the match that counts. */
static void replace_match(lua_State *L) {
  if (lua_type(L, 3) == LUA_TSTRING) {
    replace_by_text(L);
  } else {
    lua_callk(L, prepare(L), 1, 0, replaced);
    replace_by_value(L);
  }
  pass(L);
}

static int go_on(lua_State *L) {
  struct pattern *m = search_of(L);
  do {
    enum pattern_state state = search(L);
    if (state == PATTERN_PAUSED) break;
    size_t end = lua_rawlen(L, 1);
    if (!catch_up(L, state == PATTERN_NONE ? end : pattern_match_from(m))) break;
    if (state == PATTERN_NONE) return finish(L);
    if (counts(L)) {
      replace_match(L);
    } else if (state_of(L)->at == end) {
      return finish(L);
    } else {
      keep(L, state_of(L)->at + 1);
      pattern_from(m, state_of(L)->at);
    }
  } while (!yield_due(L));
  return lua_yieldk(L, 0, 0, resumed);
}

/* May this replacement call a function?  A table without a metatable is only read. */
static bool may_call(lua_State *L, int index) {
  if (lua_isfunction(L, index)) return true;
  if (!lua_istable(L, index) || !lua_getmetatable(L, index)) return false;
  lua_pop(L, 1);
  return true;
}

/* Is Lua's own function enough?  Also true when an argument is wrong, since that function raises the right
 * error. */
static bool is_light(lua_State *L) {
  size_t n;
  const char *pattern = lua_tolstring(L, 2, &n);
  bool checked =
      lua_tostring(L, 1) && pattern && (lua_istable(L, 3) || lua_isfunction(L, 3) || lua_tostring(L, 3));
  return !checked || (!may_call(L, 3) && pattern_is_light(pattern, n, lua_rawlen(L, 1)));
}

static int gsub(lua_State *L) {
  if (is_light(L)) return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
  size_t len = lua_rawlen(L, 1), size = len < PIECE / 2 ? 2 * len + LEAST : PIECE;
  lua_Integer limit = luaL_optinteger(L, 4, (lua_Integer)len + 1);
  lua_settop(L, STATE - 1);
  struct gsub *g = lua_newuserdatauv(L, sizeof *g + size, 0);
  *g = (struct gsub){.limit = limit, .last = SIZE_MAX, .size = size};
  pattern_push(L, 1, 2, true);
  lua_pushnil(L);
  return go_on(L);
}

void yielding_gsub(lua_State *L) {
  lua_getfield(L, -1, "gsub");
  if (luaL_loadbufferx(L, index_source, sizeof index_source - 1, "=gsub", "t") != LUA_OK) lua_error(L);
  lua_call(L, 0, 1);
  lua_pushcclosure(L, gsub, 2);
  lua_setfield(L, -2, "gsub");
}
