/* base_env: the globals that every process of an isolate reads, and that none can change.
 *
 * The globals of a process are a table of its own, empty at first, whose metatable sends reads to the base
 * table.  Each library in the base table is a proxy (proxy.h).  The metatables of proxies, strings, files and
 * pids cannot be read or changed. */
#ifndef VM_BIND_BASE_ENV_H
#define VM_BIND_BASE_ENV_H

#include <lua.h>
#include <stdbool.h>

struct isolate;
struct process;

/* Prepares a new lua_State for its first process; false when memory ran out. */
bool base_env_open(lua_State *L, struct isolate *iso);

/* Closes the files of a process that ends; p->files is not NULL before, and NULL after. */
void base_env_leave(struct process *p);

#endif
