/* hooks: an error that a hook raises, and nothing catches, leaves the coroutine as if the hook still ran: Lua
 * 5.4 runs no hook in it any more, neither in the functions that lua_resetthread calls, nor in what is called
 * after that. */
#ifndef VM_LUA_HOOKS_H
#define VM_LUA_HOOKS_H

#include <lua.h>

/* Lets hooks run again in a coroutine that does not run, and has no hook under way. */
void hooks_allow(lua_State *L);

#endif
