/* clang-format off */
/* copy: Lua values into terms and back.
 *
 *   nil, booleans, numbers, strings          the same in a term
 *   pids and references                      light userdata that hold an npid: PID, REF
 *   tables with the keys 1..n, or empty      LIST
 *   tables whose keys are all strings        MAP
 *   other tables                             TABLE
 *   functions, library functions, libraries  FN (fn.h)
 *
 * A table loses its metatable.  Any other value, and nesting beyond TERM_DEPTH_MAX (so any cycle), is an
 * error that names the place of the value.
 *
 * Called by the thread that runs the isolate, for the process that runs. */
/* clang-format on */
#ifndef VM_COPY_H
#define VM_COPY_H

#include "core/term.h"

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

/* The state of one encoding: a term is written to the isolate's only writer, and then copied from it.
 *
 * Between copy_begin and copy_end no code of a process may run, since that code could begin an encoding of
 * its own: no lua_call, and no operation that may call a metamethod (lua_gettable, lua_getfield, luaL_len …).
 * A caller collects what it needs first, or reads it raw.  If another encoding began nevertheless, copy_end
 * raises an error, and the damaged term is never sent.  An encoding that an error has broken off needs no
 * copy_end. */
struct copy {
  lua_State *L;
  struct term_writer *w; /* for term_put_… */
  uint32_t number;       /* of this encoding */
};

struct copy copy_begin(lua_State *L);

/* Makes a term of the values that were written, `count` of them at the top.  Raises when memory runs out, or
 * when the term is larger than a term may be. */
struct term *copy_end(const struct copy *c, uint32_t count);

/* Appends the values at stack indices first..last.  Raises when one cannot be copied; `what` ("message",
 * "argument") is how the error calls the values. */
void copy_out(const struct copy *c, const char *what, int first, int last);

/* copy_term_then makes a term of the values from stack index `first` to the top, and returns
 * then(L, term, context), which owns the term.  While a long one is made the process gives way to others; so
 * this is to be called as lua_yieldk is, by `return`.  Raises as copy_out and copy_end do. */
typedef int copy_then(lua_State *L, struct term *t, lua_KContext context);
int copy_term_then(lua_State *L, const char *what, int first, copy_then *then, lua_KContext context);

/* As copy_term_then, for a term that has more than the values:
 *   head    writes what comes first, and returns the number of values at the top of the term without those of
 *           the stack; it runs again when the encoding begins again
 *   what    how errors call the values, as in copy_out
 *   code    1: the first of the values is a function to be called, which errors call so; else 0
 *   middle  writes what comes behind the code; NULL: nothing
 *   list    the values behind the code are one LIST, which `head` counts */
struct copy_form {
  uint32_t (*head)(const struct copy *c, lua_KContext context);
  void (*middle)(const struct copy *c, lua_KContext context);
  int code;
  bool list;
  const char *what;
};
int copy_form_then(lua_State *L, int first, const struct copy_form *form, copy_then *then,
                   lua_KContext context);

/* copy_in pushes the next value of the term.  copy_in_all pushes all values that are left, and returns their
 * number.  Raises when memory runs out.  In place of a function that cannot be made here (it was made by
 * another Lua, or names a library function that this node lacks) comes one that raises the reason when it is
 * called. */
void copy_in(lua_State *L, struct term_reader *r);
int copy_in_all(lua_State *L, struct term_reader *r);

/* copy_in_then pushes the values of r, of which there are `count`, and returns then(L, n, context); n: how
 * many it has pushed.  While it copies many bytes, the process gives way to others; so this is to be called
 * as lua_yieldk is, by `return`.  Functions in values that r ends before, and that `then` reads at once, may
 * share variables with these.  The caller keeps the term until then. In place of a value for which the
 * process has no room comes one that says so.  Raises as copy_in does. */
typedef int copy_pushed(lua_State *L, int n, lua_KContext context);
int copy_in_then(lua_State *L, struct term *t, struct term_reader r, uint32_t count, copy_pushed *then,
                 lua_KContext context);

/* If the value at index is a function that stands for one that could not be made here: pushes and returns the
 * reason; else NULL. */
const char *copy_why_not(lua_State *L, int index);

/* copy_taken pushes the values of the message that the process has taken out (process_take), frees it, and
 * returns their number; by copy_in_then. */
int copy_taken(lua_State *L);

/* A byte of a term takes this many bytes of memory at most. */
enum { COPY_EXPANSION = 32 };

enum { COPY_SHARED = 1024 }; /* the longest string that processes of an isolate share */

/* Must a value of this type be copied if it is a string, so that the process that keeps it is charged for it
 * (heap.h)? */
static inline bool copy_is_long(lua_State *L, int index, int type) {
  return type == LUA_TSTRING && lua_rawlen(L, index) > COPY_SHARED;
}

/* Are the values at stack indices first..last all scalars?  Scalars are the same in every process of an
 * isolate, and need no copy; long strings do not count as scalars. */
static inline bool copy_all_scalar(lua_State *L, int first, int last) {
  for (int i = first; i <= last; i++) {
    int type = lua_type(L, i);
    if (type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TUSERDATA || type == LUA_TTHREAD ||
        copy_is_long(L, i, type))
      return false;
  }
  return true;
}

/* copy_push_npid pushes a pid or reference, or nil for NPID_NONE.  copy_to_npid reads a pid or reference from
 * the stack: NPID_NONE for any other value. */
void copy_push_npid(lua_State *L, npid p);
npid copy_to_npid(lua_State *L, int index);

#endif
