/* copy: Lua values into terms and back.
 *
 *   nil, booleans, numbers, strings      as they are
 *   pids and references                  light userdata that hold an npid
 *   tables     keys exactly 1..n: LIST (an empty one too) · all keys strings: MAP · else TABLE; metatables
 * stay functions, library functions and libraries    FN (fn.h) Anything else, or nesting beyond
 * TERM_DEPTH_MAX (so any cycle), is an error that names the value's place. */
#ifndef VM_COPY_H
#define VM_COPY_H

#include "core/term.h"

#include <lua.h>

/* Appends the values at stack indices first..last; raises.  what: "message", "argument": for errors. */
void copy_out(lua_State *L, struct term_writer *w, const char *what, int first, int last);

/* A term of those values; raises. Uses the isolate's writer. */
struct term *copy_term(lua_State *L, const char *what, int first, int last);

/* Pushes the next value; or all that are left, and returns how many. Raises when memory runs out. */
void copy_in(lua_State *L, struct term_reader *r);
int copy_in_all(lua_State *L, struct term_reader *r);

/* A pid or reference as a Lua value, and back; NPID_NONE pushes nil, and is returned for other values. */
void copy_push_npid(lua_State *L, npid p);
npid copy_to_npid(lua_State *L, int index);

/* Raises what made the writer fail. */
int copy_failed(lua_State *L, const struct term_writer *w);

#endif
