/* yielding: table.sort and string.gsub whose callbacks can be suspended: preempted, ended, or made to wait.
 *
 * Lua's own call back from C, where no coroutine can yield, so an endless comparison would keep the core for
 * good.  These give the same results and the same errors.  What calls nothing is still left to Lua's own. */
#ifndef VM_YIELDING_H
#define VM_YIELDING_H

#include <lua.h>

/* Replace the function in Lua's library, which is at the top.  Raise when memory runs out. */
void yielding_sort(lua_State *L);
void yielding_gsub(lua_State *L);

#endif
