/* base_env: the globals that every process of an isolate reads, and that none can change.
 *
 * The globals of a process are a table of its own, empty at first, whose metatable sends reads to the base
 * table.  Each library in the base table is a proxy: an empty table that sends reads to the real library and
 * refuses writes.  The metatables of proxies, strings, files and pids cannot be read or changed. */
#ifndef VM_BIND_BASE_ENV_H
#define VM_BIND_BASE_ENV_H

#include <lua.h>
#include <stdbool.h>

struct isolate;
struct process;

/* Prepares a new lua_State for its first process; false when memory ran out. */
bool base_env_open(lua_State *L, struct isolate *iso);

/* Makes the table at the top, a module, one that all processes of the isolate share: its functions get the
 * names module.function, by which functions that travel refer to them, and a proxy takes the place of the
 * table.  Memory that this needs belongs to nobody. */
void base_env_share(lua_State *L, struct isolate *iso, const char *module);

/* Closes the files of a process that ends; p->files is not NULL before, and NULL after. */
void base_env_leave(struct process *p);

#endif
