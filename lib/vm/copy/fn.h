/* fn: functions as the payload of an FN value, and copies of functions within an isolate.
 *
 * A function is copied with everything it reaches through its upvalues: values, tables (shared and cyclic
 * ones keep their shape), other functions, and upvalues that several functions share, also if these are
 * different values of one message.  Its globals become those of the receiving process.  Functions and tables
 * of the standard library are written as their names. A pid is written with its node's name, since the bytes
 * of an FN value pass through JSON unread.
 *
 * A node reads the payload (fn_format.h) only if its Lua writes the same header of bytecode.
 *
 * Called by the thread that runs the isolate, for the process that runs. */
#ifndef VM_COPY_FN_H
#define VM_COPY_FN_H

#include "core/term.h"

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct factory;
struct fn_scope;
struct isolate;
struct process;

/* Is the value a table of the standard library (or the library itself)? */
bool fn_is_library(lua_State *L, int index);

/* Ends a message, whose functions may have shared variables, and forgets them: isolate->written with
 * refs.written at the begin of an encoding, isolate->read with refs.read at the end of a decoding. */
void fn_scope_end(lua_State *L, struct fn_scope *s, int ref);

/* Appends the function (or library) at index as an FN value.  Returns NULL, or why it cannot be sent: a
 * string that is valid while what fn_encode has pushed stays on the stack. */
const char *fn_encode(lua_State *L, int index, struct term_writer *w);

/* Pushes the function that the payload describes.  Raises when the payload is damaged, was written by another
 * version of Lua, or refers to another value of its message that has not been decoded before. */
void fn_decode(lua_State *L, const char *payload, size_t len);

/* Can processes of one isolate share the value instead of copying it?  That holds for library functions and
 * library tables, and for all values that are neither tables nor functions. */
bool fn_is_plain(lua_State *L, int index, struct isolate *iso);

/* Pushes the globals of the running process, and a copy of the function at index for another process of this
 * isolate, if each of its upvalues is plain (fn_is_plain) or the table of globals; else pushes nothing and
 * returns NULL.  The copy still has the globals of the running process: fn_set_globals changes them.  Raises
 * when memory runs out. */
struct factory *fn_clone(lua_State *L, int index);

/* Sets each upvalue of the function that is the table at `from` to the table at `to` (positive indices). */
void fn_set_globals(lua_State *L, int function, int from, int to);

#endif
