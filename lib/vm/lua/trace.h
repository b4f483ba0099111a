/* trace: the traceback of a stack that may be deep.  luaL_traceback walks the whole stack for each level that
 * it shows, and some twenty times to find its end: a tenth of a second at a stack overflow. */
#ifndef VM_LUA_TRACE_H
#define VM_LUA_TRACE_H

#include <lua.h>

enum { TRACE_DEEP = 10000 /* levels */, TRACE_FIRST = 10, TRACE_LAST = 11 };

/* Pushes onto L the traceback of `from`, another coroutine.  One of a stack with at most TRACE_DEEP levels is
 * that of luaL_traceback; of a deeper one it has the same levels, but functions by the names of their callers
 * only. */
void trace_push(lua_State *L, lua_State *from);

#endif
