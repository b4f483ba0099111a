/* array: the array part of a Lua table, read and filled without a call of Lua for each value, which would
 * take most of the time that a long list of numbers takes to travel.
 *
 * Lua has no function for this: the layout of Lua 5.4 (lobject.h) is assumed, after a trial as the isolate
 * opens (factory.h reads the prototype of a closure in the same way).  Where the trial fails, no table has an
 * array here, and callers take the way of Lua's functions.
 *
 * Called by the thread that runs the isolate.  A pointer to slots is valid until the table is changed. */
#ifndef VM_COPY_ARRAY_H
#define VM_COPY_ARRAY_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct isolate;

/* A value in an array. */
struct array_slot {
  union {
    lua_Integer i;
    lua_Number d;
  };
  uint8_t tag;
};

enum array_tag { ARRAY_INT = LUA_TNUMBER, ARRAY_FLOAT = LUA_TNUMBER | 1 << 4 };

static inline bool array_is_nil(const struct array_slot *s) {
  return (s->tag & 0x0f) == LUA_TNIL;
}

/* As the isolate opens: tries whether the layout is the one assumed. */
void array_open(lua_State *L, struct isolate *iso);

/* The first n values of the table at this address (lua_topointer), if all other keys of the table are nil;
 * else NULL.  n: its raw length.  Some of the n values may be nil. */
const struct array_slot *array_of_list(const struct isolate *iso, const void *table, size_t n);

/* Has the table at this address an array alone, of about `most` slots or fewer?  Else it can be long, too. */
bool array_is_short(const struct isolate *iso, const void *table, size_t most);

/* The n slots of the table at index, which lua_createtable(L, n, 0) has just made; NULL: not known.  The
 * caller may store integers and floats there. */
struct array_slot *array_of_new(lua_State *L, const struct isolate *iso, int index, size_t n);

/* The length of the table at index, if it is a list of `least` numbers, strings, booleans, pids and
 * references or more, and nothing else; else 0. */
size_t array_is_flat(lua_State *L, const struct isolate *iso, int index, size_t least);

/* Pushes a copy of the list at index, of which array_is_flat has told the length.  False, and nothing is
 * pushed: it must be copied value by value. */
bool array_copy(lua_State *L, const struct isolate *iso, int index, size_t n);

#endif
