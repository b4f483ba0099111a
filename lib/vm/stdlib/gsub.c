/* string.gsub.  Lua's own function does the light searches whose replacement calls no function.  For the
 * others the result is built in a userdata, as no C variable survives a yield.
 *
 * Stack of a call: 1 subject, 2 pattern, 3 replacement, 4 limit, 5 state, 6 search; above that the values of
 * one step.  Invariant: text holds the result for subject[0, at). */
#include "vm/stdlib/yielding.h"

#include "vm/stdlib/pattern.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Upvalues of gsub. */
enum { ORIGINAL = 1, INDEX };

static const char index_source[] = "return function(t, key) return t[key] end";

enum { STATE = 5, SEARCH, STEP };

struct gsub {
  lua_Integer count, limit;
  size_t at;
  size_t last; /* end of the match before; SIZE_MAX: none */
  bool changed;
  size_t len, size;
  char text[];
};

static struct gsub *state_of(lua_State *L) {
  return lua_touserdata(L, STATE);
}

static struct pattern *search_of(lua_State *L) {
  return lua_touserdata(L, SEARCH);
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

/* --- replacements --- */

/* Adds a replacement string, in which %1 is a capture, %0 the match and %% a percent sign. */
static void replace_by_text(lua_State *L) {
  const struct pattern *m = search_of(L);
  size_t len, n;
  const char *text = lua_tolstring(L, 3, &len), *end = text + len;
  for (const char *p; (p = memchr(text, '%', (size_t)(end - text))); text = p + 2) {
    append(L, text, (size_t)(p - text));
    lua_settop(L, SEARCH);
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
  lua_settop(L, SEARCH);
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
  keep(L, pattern_match_from(search_of(L)));
  g = state_of(L);
  g->count++;
  return true;
}

static int go_on(lua_State *L) {
  for (;;) {
    const struct gsub *g = state_of(L);
    struct pattern *m = search_of(L);
    if (g->count >= g->limit || (pattern_is_anchored(m) && g->count > 0)) return finish(L);
    enum pattern_state state = pattern_run(L, m);
    if (state == PATTERN_PAUSED) return lua_yieldk(L, 0, 0, resumed);
    if (state == PATTERN_NONE) return finish(L);
    if (counts(L)) {
      if (lua_type(L, 3) == LUA_TSTRING) {
        replace_by_text(L);
      } else {
        lua_callk(L, prepare(L), 1, 0, replaced);
        replace_by_value(L);
      }
      pass(L);
    } else if (g->at == lua_rawlen(L, 1)) {
      return finish(L);
    } else {
      keep(L, g->at + 1);
      pattern_from(m, state_of(L)->at);
    }
  }
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
  size_t len = lua_rawlen(L, 1);
  lua_Integer limit = luaL_optinteger(L, 4, (lua_Integer)len + 1);
  lua_settop(L, STATE - 1);
  struct gsub *g = lua_newuserdatauv(L, sizeof *g + len, 0);
  *g = (struct gsub){.limit = limit, .last = SIZE_MAX, .size = len};
  pattern_push(L, 1, 2, true);
  return go_on(L);
}

void yielding_gsub(lua_State *L) {
  lua_getfield(L, -1, "gsub");
  if (luaL_loadbufferx(L, index_source, sizeof index_source - 1, "=gsub", "t") != LUA_OK) lua_error(L);
  lua_call(L, 0, 1);
  lua_pushcclosure(L, gsub, 2);
  lua_setfield(L, -2, "gsub");
}
