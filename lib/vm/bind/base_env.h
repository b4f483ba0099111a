/* base_env: the globals that every process of an isolate sees, and what keeps them from being changed.
 *
 * A process's own globals are an empty table whose metatable leads reads to the base table.  Libraries in it
 * are empty tables, too, that lead reads to the real ones; writing to them, their metatables and those of
 * strings and pids is refused. */
#ifndef VM_BIND_BASE_ENV_H
#define VM_BIND_BASE_ENV_H

#include <lua.h>
#include <stdbool.h>

struct isolate;

/* Sets up a new lua_State; false when memory ran out. */
bool base_env_open(lua_State *L, struct isolate *iso);

#endif
