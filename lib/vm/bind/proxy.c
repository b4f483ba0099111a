/* Invariant: what a read of a proxy returns is a function, a string or a number, but no table. */
#include "vm/bind/proxy.h"

#include "vm/process/isolate.h"

#include <lauxlib.h>
#include <stdio.h>

int proxy_refuse_write(lua_State *L) {
  return luaL_error(L, "the standard library cannot be changed");
}

int proxy_next_pair(lua_State *L) {
  lua_settop(L, 2);
  if (lua_next(L, lua_upvalueindex(1))) return 2;
  lua_pushnil(L);
  return 1;
}

/* pairs of a proxy walks the real table, but does not return it. */
static int walk(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushcclosure(L, proxy_next_pair, 1);
  return 1;
}

void proxy_protect_metatable(lua_State *L) {
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
}

void proxy_make(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 4);
  lua_pushvalue(L, -3);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, proxy_refuse_write);
  lua_setfield(L, -2, "__newindex");
  lua_pushvalue(L, -3);
  lua_pushcclosure(L, walk, 1);
  lua_setfield(L, -2, "__pairs");
  proxy_protect_metatable(L);
  lua_setmetatable(L, -2);
  lua_replace(L, -2);
}

void proxy_note_name(lua_State *L, struct isolate *iso, const char *name) {
  int value = lua_gettop(L);
  if (!lua_isfunction(L, value) && !lua_istable(L, value)) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.names);
  lua_pushvalue(L, value);
  lua_pushstring(L, name);
  lua_rawset(L, -3);
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.values);
  lua_pushvalue(L, value);
  lua_setfield(L, -2, name);
  lua_pop(L, 2);
}

void proxy_note_fields(lua_State *L, struct isolate *iso, const char *library) {
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", library, *library ? "." : "", lua_tostring(L, -2));
    proxy_note_name(L, iso, name);
    lua_pop(L, 1);
  }
}

void proxy_share(lua_State *L, struct isolate *iso, const char *module) {
  proxy_note_fields(L, iso, module);
  proxy_note_name(L, iso, module);
  proxy_make(L);
  proxy_note_name(L, iso, module);
}
