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
#include <stdbool.h>
#include <stdint.h>

/* One encoding: a term is written to the isolate's one writer, and then taken from it.
 *
 * Between copy_begin and copy_end no code of a process may run, since that code could begin an encoding of
 * its own: no lua_call, and no operation that may call a metamethod (lua_gettable, lua_getfield, luaL_len …).
 * A caller collects what it needs first, or reads it raw.  If another encoding began all the same, copy_end
 * raises an error, and the damaged term is never sent.  An encoding that an error leaves needs no copy_end.
 */
struct copy {
  lua_State *L;
  struct term_writer *w; /* for term_put_… */
  uint32_t number;       /* of this encoding */
};

struct copy copy_begin(lua_State *L);

/* A term of what was written, `count` values at the top.  Raises when memory runs out, or when the term is
 * larger than a term may be. */
struct term *copy_end(const struct copy *c, uint32_t count);

/* Appends the values at stack indices first..last; raises.  what: "message", "argument": for errors. */
void copy_out(const struct copy *c, const char *what, int first, int last);

/* A term of those values alone; raises. */
struct term *copy_term(lua_State *L, const char *what, int first, int last);

/* Pushes the next value; or all that are left, and returns how many. Raises when memory runs out. */
void copy_in(lua_State *L, struct term_reader *r);
int copy_in_all(lua_State *L, struct term_reader *r);

/* Are the values at stack indices first..last all scalars: the same in every process of an isolate, so that
 * they need no copy? */
static inline bool copy_all_scalar(lua_State *L, int first, int last) {
  for (int i = first; i <= last; i++) {
    int type = lua_type(L, i);
    if (type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TUSERDATA || type == LUA_TTHREAD)
      return false;
  }
  return true;
}

/* A pid or reference as a Lua value, and back; NPID_NONE pushes nil, and is returned for other values. */
void copy_push_npid(lua_State *L, npid p);
npid copy_to_npid(lua_State *L, int index);

#endif
