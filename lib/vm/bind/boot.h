/* boot: the first steps of a process that an order (process/spawn.h) has made: it loads the code, answers the
 * order, and calls the function with the arguments. */
#ifndef VM_BIND_BOOT_H
#define VM_BIND_BOOT_H

#include <lua.h>

/* A C function for the coroutine of the new process. */
int boot_process(lua_State *L);

#endif
