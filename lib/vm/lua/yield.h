/* yield: tells a C function that takes long when to yield. */
#ifndef VM_LUA_YIELD_H
#define VM_LUA_YIELD_H

#include <lua.h>
#include <stdbool.h>

/* Is the C function to yield now?  A loop asks between two pieces of its work; when the answer is true, it
 * calls lua_yieldk.  Raises when the process cannot yield here and must stop. */
bool yield_due(lua_State *L);

#endif
