/* tostring, which calls __tostring so that it can yield; format.c does the same for string.format. */
#include "vm/stdlib/yielding.h"

#include <lauxlib.h>
#include <stdbool.h>

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
