/* files: io.open and io.lines, which refuse what might never answer, and open nothing that commands inherit.
 */
#ifndef VM_STDLIB_FILES_H
#define VM_STDLIB_FILES_H

#include <lua.h>

int files_open(lua_State *L);
int files_lines(lua_State *L);

#endif
