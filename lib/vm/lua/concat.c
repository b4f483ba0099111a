/* Repairs the operator `..` of Debian's Lua 5.4.4.  Debian's patch for CVE-2022-33099 (upstream commit
 * 42d40581) has a fault, which upstream repaired three days later (603b2c64, in 5.4.5): after luaV_concat has
 * called a __concat metamethod, it goes on with a pointer into the stack as the stack was before the call. If
 * the stack has moved, since it grew or shrank, the program crashes.
 *
 * The linker sends the call of luaT_tryconcatTM, which calls the metamethod, to the function below (--wrap in
 * the Makefile).  Where the stack has moved, this function does not return to luaV_concat: it finishes the
 * instruction as Lua does when a metamethod has yielded (luaV_finishOp), and yields; when the coroutine is
 * resumed, it goes on with the next instruction, as after a yield in a hook. */
#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_RELEASE_NUM == LUA_VERSION_NUM * 100 + 4
enum { HAS_FAULT = 1, TOP_OFFSET = 16 }; /* of `top` in lua_State */
#else
enum { HAS_FAULT = 0, TOP_OFFSET = 16 };
#endif

void __real_luaT_tryconcatTM(lua_State *L);
void __wrap_luaT_tryconcatTM(lua_State *L);
void luaV_finishOp(lua_State *L);
void luaD_throw(lua_State *L, int status) __attribute__((noreturn));

static const void *top_of(const lua_State *L) {
  return *(const void *const *)((const char *)L + TOP_OFFSET);
}

static int is_lua_function(lua_State *L) {
  lua_Debug ar;
  return lua_getstack(L, 0, &ar) && lua_getinfo(L, "S", &ar) && *ar.what != 'C';
}

/* The metamethod returns its result in the place of the first operand, at -2. */
void __wrap_luaT_tryconcatTM(lua_State *L) {
  const void *top = top_of(L);
  __real_luaT_tryconcatTM(L);
  if (!HAS_FAULT || top_of(L) == top) return;
  if (!lua_isyieldable(L) || !is_lua_function(L)) {
    lua_pushliteral(L, "Lua 5.4.4 cannot call __concat here: a callback of a C function runs");
    lua_error(L);
  }
  lua_pushvalue(L, -2); /* where luaV_finishOp expects it */
  luaV_finishOp(L);
  lua_yield(L, 0);
  luaD_throw(L, LUA_YIELD);
}
