/* No function of Lua sets `allowhook` of a lua_State again, so this does.  The beginning of Lua 5.4's
 * lua_State (lstate.h) is assumed: a pointer, two bytes, `status`, `allowhook`.  It is compared with what
 * lua_status tells, and left alone where it differs. */
#include "vm/lua/hooks.h"

#include <stddef.h>

struct beginning {
  void *next;
  unsigned char tt, marked, status, allowhook;
};

void hooks_allow(lua_State *L) {
  struct beginning *b = (struct beginning *)L;
  if (LUA_VERSION_NUM == 504 && b->status == lua_status(L) && b->allowhook == 0) b->allowhook = 1;
}
