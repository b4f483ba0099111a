/* pieces: a string that is built in pieces, between which the process may yield.
 *
 * Lua makes a string in one step, from bytes that exist already: for 100 MB that takes tens of milliseconds,
 * mostly for the pages of the copy.  A struct pieces is a userdata that holds the block in which the string
 * will lie.  The caller fills it at its own pace, and pieces_finish makes it a string without a copy.
 *
 * The block belongs to the process that runs, and counts against its memory, as that of a string does. */
#ifndef VM_LUA_PIECES_H
#define VM_LUA_PIECES_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

enum { PIECE = 64 << 10 }; /* bytes that are handled far faster than a time slice */

struct pieces {
  char *bytes;    /* to be filled; at most len bytes */
  size_t len, at; /* the string's length; how many bytes are there: only the caller uses `at` */

  char *block;   /* NULL once the string is made */
  size_t size;   /* of the block */
  size_t offset; /* of the string's bytes in it */
  lua_Alloc alloc;
  void *ud;
};

/* Pushes a string of len bytes that is yet to be filled.  Raises when memory runs out. */
struct pieces *pieces_push(lua_State *L, size_t len);

/* The length of the next piece. */
static inline size_t pieces_next(const struct pieces *p) {
  return p->len - p->at < PIECE ? p->len - p->at : PIECE;
}

/* Replaces the pieces at index by the string. */
void pieces_finish(lua_State *L, int index);

#endif
