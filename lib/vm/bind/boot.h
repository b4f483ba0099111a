/* boot: the first steps of a process that an order (process/spawn.h) has made: it loads the code, answers the
 * order, and calls the function with the arguments. */
#ifndef VM_BIND_BOOT_H
#define VM_BIND_BOOT_H

#include <lua.h>

/* The C function that the coroutine of a new process starts with. */
int boot_process(lua_State *L);

#endif
