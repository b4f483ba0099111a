/* yielding: functions of Lua's library that take long or call back, in forms that can be suspended:
 * preempted, ended, or made to wait.
 *
 * Lua's own call back from C, where no coroutine can yield, and some of them compute for as long as their
 * arguments ask for.  These give the same results and the same errors.  What is short and calls nothing is
 * still left to Lua's own. */
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

int yielding_tostring(lua_State *L);

/* Turns the value at index into its text, in its place: false when that is done.  Otherwise its __tostring
 * was called, and what it has returned is at the top for yielding_text_done; had it to wait, `then` goes on.
 */
bool yielding_text(lua_State *L, int index, lua_KContext context, lua_KFunction then);
void yielding_text_done(lua_State *L, int index);

#endif
