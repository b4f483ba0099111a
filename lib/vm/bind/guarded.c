/* Invariant: what a process gets by these functions is text that was loaded, or a value of its own: no
 * bytecode, no finalizer, and no table of a library to write into. */
#include "vm/bind/guarded.h"

#include "vm/copy/fn.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/stdlib/yielding.h"

#include <lauxlib.h>
#include <string.h>

/* setmetatable refuses __gc: a finalizer would run in whichever process collects garbage. */
static int base_setmetatable(lua_State *L) {
  int type = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  if (type != LUA_TNIL && type != LUA_TTABLE) return luaL_typeerror(L, 2, "nil or table");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
    return luaL_error(L, "cannot change a protected metatable");
  if (type == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL) return luaL_error(L, "__gc is not available in a process");
  }
  lua_settop(L, 2);
  lua_setmetatable(L, 1);
  return 1;
}

static int base_rawset(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkany(L, 2);
  luaL_checkany(L, 3);
  if (fn_is_library(L, 1)) return luaL_error(L, "the standard library cannot be changed");
  lua_settop(L, 3);
  lua_rawset(L, 1);
  return 1;
}

/* Refuses a chunk of text as Lua does: nil and the reason. */
static int refuse_text(lua_State *L, const char *mode) {
  luaL_pushfail(L);
  lua_pushfstring(L, "attempt to load a text chunk (mode is '%s')", mode);
  return 2;
}

enum { LOAD_MAX = 4 << 20 }; /* the parser cannot be suspended, and reads about 60 bytes in a microsecond */

/* Refuses a chunk that is too long, in the same way. */
static int refuse_long(lua_State *L) {
  luaL_pushfail(L);
  lua_pushfstring(L, "a chunk may have %d bytes", LOAD_MAX);
  return 2;
}

/* The reader function of load, and the number of bytes that it has returned, are the upvalues. */
static int read_bounded(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_call(L, 0, 1);
  lua_Integer total = lua_tointeger(L, lua_upvalueindex(2));
  if (lua_type(L, 1) == LUA_TSTRING) total += (lua_Integer)lua_rawlen(L, 1);
  if (total > LOAD_MAX) return luaL_error(L, "a chunk may have %d bytes", LOAD_MAX);
  lua_pushinteger(L, total);
  lua_replace(L, lua_upvalueindex(2));
  return 1;
}

/* Puts read_bounded in place of the reader function, which is argument 1. */
static void bound_reader(lua_State *L) {
  lua_pushvalue(L, 1);
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, read_bounded, 2);
  lua_replace(L, 1);
}

/* load(chunk, name, mode, globals): text only; globals are those of the process by default.  Upvalue: Lua's
 * load. */
static int base_load(lua_State *L) {
  bool own_globals = lua_gettop(L) < 4;
  const char *mode = luaL_optstring(L, 3, "bt");
  if (!lua_isstring(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  if (!strchr(mode, 't')) return refuse_text(L, mode);
  if (lua_isfunction(L, 1)) {
    bound_reader(L);
  } else if (lua_rawlen(L, 1) > LOAD_MAX) {
    return refuse_long(L);
  }
  lua_settop(L, 4);
  lua_pushliteral(L, "t");
  lua_replace(L, 3);
  if (own_globals) {
    process_push_env(L, process_of(L));
    lua_replace(L, 4);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 4, LUA_MULTRET);
  return lua_gettop(L);
}

static int base_collectgarbage(lua_State *L) {
  const char *what = luaL_optstring(L, 1, "count");
  if (strcmp(what, "count") != 0) return luaL_argerror(L, 1, "only \"count\" is available in a process");
  lua_pushnumber(L, (lua_Number)process_memory(process_of(L)) / 1024);
  return 1;
}

/* A handler that fails is called again, with its own error; after HANDLER_TRIES failures the error is
 * "error in error handling", as in Lua, where the C stack bounds the number. */
enum { HANDLER_TRIES = 10 };

static int xpcall_handled(lua_State *L, int status, lua_KContext tries);

/* Stack: the handler, and the error for it. */
static int call_handler(lua_State *L, lua_KContext tries) {
  lua_pushvalue(L, 1);
  lua_insert(L, 2);
  return xpcall_handled(L, lua_pcallk(L, 1, 1, 0, tries, xpcall_handled), tries);
}

/* Stack: the handler, and its result, or its own error. */
static int xpcall_handled(lua_State *L, int status, lua_KContext tries) {
  if (status != LUA_OK && status != LUA_YIELD) {
    if (tries + 1 < HANDLER_TRIES) return call_handler(L, tries + 1);
    lua_pushliteral(L, "error in error handling");
    lua_replace(L, 2);
  }
  lua_pushboolean(L, 0);
  lua_replace(L, 1);
  return 2;
}

/* Stack: the handler, and the results, or the error. */
static int xpcall_finished(lua_State *L, int status, lua_KContext context) {
  (void)context;
  if (status == LUA_OK || status == LUA_YIELD) {
    lua_pushboolean(L, 1);
    lua_replace(L, 1);
    return lua_gettop(L);
  }
  return call_handler(L, 0);
}

/* The handler runs after the stack is unwound, so that it can yield.  It cannot tell the difference, as
 * processes have no debug library. */
static int base_xpcall(lua_State *L) {
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 2);
  lua_insert(L, 1);
  lua_remove(L, 3);
  return xpcall_finished(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, xpcall_finished), 0);
}

static const luaL_Reg guarded[] = {
    {"setmetatable", base_setmetatable}, {"rawset", base_rawset}, {"collectgarbage", base_collectgarbage},
    {"tostring", yielding_tostring},     {"xpcall", base_xpcall}, {NULL, NULL},
};

void guarded_functions(lua_State *L, int from) {
  lua_getfield(L, from, "load");
  lua_pushcclosure(L, base_load, 1);
  lua_setfield(L, -2, "load");
  luaL_setfuncs(L, guarded, 0);
}
