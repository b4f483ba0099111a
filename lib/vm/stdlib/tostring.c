/* Functions that make text of values: they call __tostring so that it can yield. */
#include "vm/stdlib/yielding.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>

enum { ORIGINAL = 1 };

/* --- __tostring --- */

bool yielding_text(lua_State *L, int index, lua_KContext context, lua_KFunction then) {
  if (lua_type(L, index) != LUA_TTABLE || luaL_getmetafield(L, index, "__tostring") == LUA_TNIL) {
    luaL_tolstring(L, index, NULL);
    lua_replace(L, index);
    return false;
  }
  lua_pushvalue(L, index);
  lua_callk(L, 1, 1, context, then);
  return true;
}

void yielding_text_done(lua_State *L, int index) {
  if (!lua_isstring(L, -1)) luaL_error(L, "'__tostring' must return a string");
  lua_tostring(L, -1); /* makes a string of a number */
  lua_replace(L, index);
}

static int tostring_called(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  yielding_text_done(L, 1);
  return 1;
}

int yielding_tostring(lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  if (yielding_text(L, 1, 0, tostring_called)) yielding_text_done(L, 1);
  return 1;
}

/* --- format --- */

/* The index of the next argument, from `from` on, that belongs to a %s; or 0.  Every conversion has one
 * argument. */
static int next_text(lua_State *L, int from) {
  int arg = 2;
  for (const char *p = lua_tostring(L, 1); (p = strchr(p, '%')); arg++) {
    p += 1 + strspn(p + 1, "-+ #0123456789.");
    if (*p == 's' && arg >= from) return arg <= lua_gettop(L) ? arg : 0;
    if (*p == '%') arg--;
    if (*p) p++;
  }
  return 0;
}

static int format_called(lua_State *L, int status, lua_KContext arg);

static int format_from(lua_State *L, int arg) {
  while ((arg = next_text(L, arg))) {
    if (lua_type(L, arg) == LUA_TTABLE && yielding_text(L, arg, arg, format_called))
      yielding_text_done(L, arg);
    arg++;
  }
  return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
}

static int format_called(lua_State *L, int status, lua_KContext arg) {
  (void)status;
  yielding_text_done(L, (int)arg);
  return format_from(L, (int)arg + 1);
}

static int format(lua_State *L) {
  bool tables = false;
  for (int i = lua_gettop(L); i > 1 && !tables; i--) tables = lua_istable(L, i);
  if (tables && lua_tostring(L, 1)) return format_from(L, 2);
  return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
}

void yielding_format(lua_State *L) {
  lua_getfield(L, -1, "format");
  lua_pushcclosure(L, format, 1);
  lua_setfield(L, -2, "format");
}
