/* yielding: functions of Lua's library that take long or call functions, in forms during which a process can
 * be suspended: preempted, ended, or made to wait.
 *
 * Lua's own functions call back from C, where no coroutine can yield, and some compute for as long as their
 * arguments ask for.  The functions here return the same results and raise the same errors.  They leave short
 * work that calls nothing to Lua's own functions.
 *
 * The files of stdlib/ do not use the structures of processes: they ask Lua's hook whether to yield. */
#ifndef VM_STDLIB_YIELDING_H
#define VM_STDLIB_YIELDING_H

#include <lua.h>
#include <stdbool.h>

/* Replace functions in Lua's library, which is at the top.  Raise when memory runs out. */
void yielding_sort(lua_State *L);   /* table.sort */
void yielding_tables(lua_State *L); /* table.concat insert move remove unpack */
void yielding_find(lua_State *L);   /* string.find match gmatch rep */
void yielding_gsub(lua_State *L);   /* string.gsub */
void yielding_format(lua_State *L); /* string.format */
void yielding_ipairs(lua_State *L); /* ipairs, of the basic functions */

/* tostring, as a Lua function. */
int yielding_tostring(lua_State *L);

/* Replaces the value at index by its text, and returns false.  If the value has a __tostring, calls it
 * instead, and returns true with the result at the top; yielding_text_done checks this result and replaces
 * the value by it.  When the __tostring yields, `then` runs after it with context, and must call
 * yielding_text_done. */
bool yielding_text(lua_State *L, int index, lua_KContext context, lua_KFunction then);
void yielding_text_done(lua_State *L, int index);

#endif
