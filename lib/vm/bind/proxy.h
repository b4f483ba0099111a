/* proxy: tables that all processes of an isolate read, and that none can change; and the names by which
 * functions that travel (copy/fn.h) refer to the values in them.
 *
 * A proxy is an empty table that sends reads to the real table and refuses writes; its metatable can be
 * neither read nor changed.  Called by the thread that runs the isolate; raises when memory runs out. */
#ifndef VM_BIND_PROXY_H
#define VM_BIND_PROXY_H

#include <lua.h>

struct isolate;

/* Replaces the table at the top by a proxy for it. */
void proxy_make(lua_State *L);

/* Makes the table at the top, a module, one that all processes of the isolate share: its functions get the
 * names module.function, and a proxy takes the place of the table.  Memory that this needs belongs to nobody.
 */
void proxy_share(lua_State *L, struct isolate *iso, const char *module);

/* Gives the value at the top this name; nothing if it is neither a function nor a table. */
void proxy_note_name(lua_State *L, struct isolate *iso, const char *name);

/* Gives each value in the table at the top the name library.key; library "": the key alone. */
void proxy_note_fields(lua_State *L, struct isolate *iso, const char *library);

/* Keeps the metatable at the top from processes: they can neither read nor change it. */
void proxy_protect_metatable(lua_State *L);

/* As Lua functions: __newindex, which raises an error; and a `next` for the table that is its upvalue. */
int proxy_refuse_write(lua_State *L);
int proxy_next_pair(lua_State *L);

#endif
