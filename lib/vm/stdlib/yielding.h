/* yielding: functions of Lua's library that take long or call functions, in forms during which a process can
 * be suspended: preempted, ended, or made to wait.
 *
 * Lua's own functions call back from C, where no coroutine can yield, and some compute for as long as their
 * arguments ask for.  The functions here return the same results and raise the same errors.  They leave short
 * work that calls nothing to Lua's own functions.
 *
 * The files of stdlib/ do not use the structures of processes: they ask Lua's hook whether to yield
 * (lua/yield.h). */
#ifndef VM_STDLIB_YIELDING_H
#define VM_STDLIB_YIELDING_H

#include <lua.h>
#include <stdbool.h>

/* Replace functions in Lua's library, which is at the top.  Raise when memory runs out. */
void yielding_sort(lua_State *L);    /* table.sort */
void yielding_tables(lua_State *L);  /* table.concat insert move remove unpack */
void yielding_find(lua_State *L);    /* string.find match gmatch */
void yielding_strings(lua_State *L); /* string.upper lower reverse sub rep byte pack packsize unpack */
void yielding_gsub(lua_State *L);    /* string.gsub */
void yielding_format(lua_State *L);  /* string.format */
void yielding_offset(lua_State *L);  /* utf8.offset codepoint */
void yielding_len(lua_State *L);     /* utf8.len */
void yielding_os(lua_State *L);      /* os.date */
void yielding_ipairs(lua_State *L);  /* ipairs, of the basic functions */

/* A function of the library returns so many values at most: more take too long to push. */
enum { YIELDING_VALUES = 250000 };

/* table.concat for a table without a metatable at index 1, whose separator at index 2 is a string, a number
 * or nil.  yielding_join returns its result, or raises an error by calling Lua's own function `original`. */
bool yielding_join_is_long(lua_State *L, lua_Integer first, lua_Integer last);
int yielding_join(lua_State *L, lua_CFunction original, lua_Integer first, lua_Integer last);

/* tostring, as a Lua function. */
int yielding_tostring(lua_State *L);

/* Replaces the value at index by its text, and returns false.  If the value has a __tostring, calls it
 * instead, and returns true with the result at the top; yielding_text_done checks this result and replaces
 * the value by it.  When the __tostring yields, `then` runs after it with context, and must call
 * yielding_text_done. */
bool yielding_text(lua_State *L, int index, lua_KContext context, lua_KFunction then);
void yielding_text_done(lua_State *L, int index);

#endif
