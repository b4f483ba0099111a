/* fn: functions that travel.
 *
 * A function is copied with everything it reaches through its upvalues: values, tables (shared and cyclic
 * ones keep their shape), other functions, and upvalues that several functions share.  Its globals become
 * those of the process that receives it; functions and tables of the standard library are found again there
 * by name. Pids are written with their node's name, as only this module reads the bytes.
 *
 * The payload (fn_format.h) is read only where Lua writes the same bytecode. */
#ifndef VM_COPY_FN_H
#define VM_COPY_FN_H

#include "core/term.h"

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct isolate;
struct process;

/* Is the value a table of the standard library (or the library itself)? */
bool fn_is_library(lua_State *L, int index);

/* Appends the function (or library) at index as an FN value; NULL, or what is wrong (a string that lives
 * until the stack is unwound). */
const char *fn_encode(lua_State *L, int index, struct term_writer *w);

/* Pushes the function that the payload describes; raises. */
void fn_decode(lua_State *L, const char *payload, size_t len);

/* Does the value stand for itself in a copy: neither table nor function, or one of the library? */
bool fn_is_plain(lua_State *L, int index, struct isolate *iso);

/* Pushes a copy of the function at index for another process of this isolate, if its upvalues are all
 * globals, plain values and library functions; else pushes nothing and returns false.  Its globals are still
 * those of the running process.  Raises when memory runs out. */
bool fn_clone(lua_State *L, int index);

/* Upvalues of the function that are the table at `from` become the one at `to` (indices from the bottom). */
void fn_set_globals(lua_State *L, int function, int from, int to);

#endif
