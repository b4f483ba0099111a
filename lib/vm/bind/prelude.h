/* prelude: the functions of the process language that are written in Lua. */
#ifndef VM_BIND_PRELUDE_H
#define VM_BIND_PRELUDE_H

/* A chunk of Lua.  It is called with the base table as its globals, and defines its functions there. */
extern const char prelude_source[];

#endif
