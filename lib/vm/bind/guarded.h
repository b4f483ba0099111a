/* guarded: Lua's own functions in forms that a process may have: setmetatable, rawset and load, which refuse
 * what would reach other processes, collectgarbage, which counts the memory of the process, and tostring and
 * xpcall, which can be suspended.  Called by the thread that runs the isolate. */
#ifndef VM_BIND_GUARDED_H
#define VM_BIND_GUARDED_H

#include <lua.h>

/* Puts them into the table at the top; the table at the index `from` has Lua's own. */
void guarded_functions(lua_State *L, int from);

#endif
