#include "vm/lua/yield.h"

/* To take the core, the scheduler sets a hook, which yields or raises at the next Lua instruction.  A C
 * function executes no instruction, so it looks for the hook itself, and does what the hook would do. */
bool yield_due(lua_State *L) {
  if (!lua_gethookmask(L)) return false;
  if (lua_isyieldable(L)) {
    lua_sethook(L, NULL, 0, 0);
    return true;
  }
  lua_Debug event = {0};
  event.event = LUA_HOOKCOUNT;
  lua_gethook(L)(L, &event); /* raises, when the callback has had its time or its process must end */
  return false;
}
