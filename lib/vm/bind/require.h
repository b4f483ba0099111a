/* require: modules in Lua, from the directories of vm_config.path.  Each process loads its own copy; the
 * isolate keeps the bytecode until the file changes. */
#ifndef VM_BIND_REQUIRE_H
#define VM_BIND_REQUIRE_H

#include <lua.h>

/* As a Lua function: (name) -> the module. */
int require_module(lua_State *L);

/* Pushes the table of the modules that the running process has loaded. */
void require_push_loaded(lua_State *L);

#endif
