/* Within an isolate a function is copied without an encoding: a fresh instance gets the same plain upvalues.
 */
#include "vm/copy/fn.h"

#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/copy/fn_format.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <string.h>

static int count_upvalues(lua_State *L, int index) {
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  return ar.nups;
}

struct factory *fn_clone(lua_State *L, int index) {
  struct process *p = process_of(L);
  struct isolate *iso = p->isolate;
  int top = lua_gettop(L), count = count_upvalues(L, index);
  luaL_checkstack(L, count + 8, NULL);
  process_push_env(L, p);
  lua_pushnil(L); /* the place of the copy, below the values of the function's upvalues */
  bool plain = !lua_iscfunction(L, index);
  for (int i = 1; i <= count && plain; i++) {
    lua_getupvalue(L, index, i);
    plain = lua_rawequal(L, -1, top + 1) ||
            (fn_is_plain(L, lua_gettop(L), iso) && !copy_is_long(L, -1, lua_type(L, -1)));
  }
  if (!plain) {
    lua_settop(L, top);
    return NULL;
  }
  const char *problem;
  struct factory *f = factory_of(L, iso, index, &problem);
  if (!f) {
    luaL_error(L, "%s", problem);
    return NULL; /* luaL_error does not return */
  }
  factory_push(L, f);
  lua_replace(L, top + 2);
  for (int i = count; i >= 1; i--) lua_setupvalue(L, top + 2, i);
  return f;
}

void fn_set_globals(lua_State *L, int function, int from, int to) {
  for (int i = 1; lua_getupvalue(L, function, i); i++) {
    if (lua_rawequal(L, -1, from)) {
      lua_pushvalue(L, to);
      lua_setupvalue(L, function, i);
    }
    lua_pop(L, 1);
  }
}
