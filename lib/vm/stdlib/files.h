/* files: io.open and io.lines.  They refuse files whose reads may block (FIFOs, terminals, sockets), and open
 * every file so that commands do not inherit its descriptor. */
#ifndef VM_STDLIB_FILES_H
#define VM_STDLIB_FILES_H

#include <lua.h>

/* As Lua functions: (path, mode) and (path, formats…). */
int files_open(lua_State *L);
int files_lines(lua_State *L);

#endif
