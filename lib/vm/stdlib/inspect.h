/* inspect: any value as text that a person can read, close to the form in which the value is typed.
 *
 * It calls no metamethod, so it never runs code of a process, never waits, and may be used on the values of
 * any process at any time.  Depth, items and length of the text are bounded. */
#ifndef VM_STDLIB_INSPECT_H
#define VM_STDLIB_INSPECT_H

#include "base/buf.h"

#include <lua.h>

/* Appends the text of the light userdata at index: only the caller knows what its light userdata stand for.
 */
typedef void inspect_handle(lua_State *L, int index, struct buf *out);

/* Pushes the text of the value at index.  Raises when memory runs out. */
void inspect_push(lua_State *L, int index, inspect_handle *handle);

#endif
