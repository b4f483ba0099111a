/* prelude: the functions of the process language that are written in it. */
#ifndef VM_BIND_PRELUDE_H
#define VM_BIND_PRELUDE_H

/* A chunk that is given the base table as its globals, and defines them there. */
extern const char prelude_source[];

#endif
