/* require: modules in Lua, from the directories of vm_config.path.  Each process loads its own copy; the
 * isolate keeps the bytecode until the file changes.
 *
 * The modules that come with the node keep no state, so the processes of an isolate share them, as they do
 * Lua's libraries: no process can change them, and functions that have captured one are spawned and sent
 * without a copy of it.  They see the globals that every process has, not those that a process has set. */
#ifndef VM_BIND_REQUIRE_H
#define VM_BIND_REQUIRE_H

#include <lua.h>

/* As a Lua function: (name) -> the module. */
int require_module(lua_State *L);

/* As a Lua function: require for the modules that come with the node. */
int require_shared(lua_State *L);

/* Pushes what comes with the node under the name "module" or "module.function"; nil if nothing does. */
void require_library(lua_State *L, const char *name);

/* Pushes the table of the modules that the running process has loaded. */
void require_push_loaded(lua_State *L);

#endif
