/* Tracebacks of stacks, deep ones too. */
#include "vm/lua/trace.h"

#include "tap.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

/* A coroutine that has ended with an error, `depth` calls deep, called by a function with the name outer. */
static lua_State *fallen(lua_State *L, int depth) {
  static const char code[] = "local depth = ...\n"
                             "local function down(n)\n"
                             "  if n == 0 then error('down') end\n"
                             "  return 1 + down(n - 1)\n"
                             "end\n"
                             "local function outer() down(depth) end\n"
                             "outer()\n";
  int n;
  lua_State *co = lua_newthread(L);
  if (luaL_loadbuffer(co, code, strlen(code), "=code")) abort();
  lua_pushinteger(co, depth);
  if (lua_resume(co, L, 1, &n) != LUA_ERRRUN) abort();
  return co;
}

static int lines(const char *s) {
  int n = 1;
  for (; *s; s++) n += *s == '\n';
  return n;
}

static void test_shallow(lua_State *L) {
  lua_State *co = fallen(L, 100);
  luaL_traceback(L, co, NULL, 0);
  trace_push(L, co);
  ok(lua_rawequal(L, -1, -2), "the traceback of a shallow stack is that of Lua");
  lua_settop(L, 0);
}

static void test_deep(lua_State *L) {
  lua_State *co = fallen(L, 150000);
  trace_push(L, co);
  luaL_traceback(L, co, NULL, 0);
  const char *mine = lua_tostring(L, -2), *theirs = lua_tostring(L, -1);
  ok(lines(mine) == lines(theirs), "that of a deep one has as many levels");
  ok(strstr(mine, "...\t(skipping 149983 levels)"), "and tells how many are left out");
  const char *end = strstr(mine, "levels)"), *same = strstr(theirs, "levels)");
  ok(end && same && strcmp(end, same) == 0 && strstr(end, "code:7: in main chunk"),
     "ends with the outermost calls");
  ok(strstr(mine, "[C]: in ") && strstr(mine, "code:3: in upvalue 'down'"), "and begins with the innermost");
  lua_settop(L, 0);
}

static void test_end(lua_State *L) {
  lua_State *co = lua_newthread(L);
  trace_push(L, co);
  is(lua_tostring(L, -1), "stack traceback:", "that of a coroutine without calls has no levels");
  lua_settop(L, 0);
}

int main(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  test_shallow(L);
  test_deep(L);
  test_end(L);
  lua_close(L);
  return tap_end();
}
