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

/* What a step of writing or reading a function has come to. */
enum fn_step {
  FN_GOES_ON, /* the budget is used up */
  FN_TEXT,    /* the caller is to copy a string */
  FN_DONE,
  FN_REFUSED, /* the reason is at the top of the stack */
};

/* Appends the function (or library) at index as an FN value, if its upvalues are plain or globals; else
 * appends nothing and returns false. */
bool fn_write_flat(lua_State *L, int index, struct term_writer *w);

/* A function that is being written.  It keeps some values on the stack, from `base` on. */
struct fn_writer {
  struct term_writer *w;
  int base;
  size_t at;     /* where its length is in the term */
  uint32_t next; /* the object whose contents are being written */
  uint8_t stage;
  int i, count;          /* of a function: upvalues that are done, of how many */
  uint32_t array, pairs; /* of a table: values that are done with keys of its list, and in all */
  size_t border;         /* the length of that list */
};

/* fn_write_begin begins with the function (or library) at index as an FN value, and is followed by calls of
 * fn_write_on until that returns neither FN_GOES_ON nor FN_TEXT.  At FN_TEXT the string at the top of the
 * stack is to be appended, and popped.  *work is counted down by one for a value, as far as to 0; between two
 * calls the process may give way.  Both raise when memory of Lua runs out. */
void fn_write_begin(lua_State *L, struct fn_writer *f, int index, struct term_writer *w);
enum fn_step fn_write_on(lua_State *L, struct fn_writer *f, int *work);

/* A function that is being read.  It keeps some values on the stack, from `base` on. */
struct fn_reader {
  const char *at, *end;
  const char *text; /* FN_TEXT: the bytes of the string, NULL: there is none; */
  uint32_t len;     /* so many */
  bool whole;       /* strings of any length are copied in one step: there is no FN_TEXT */
  int base;
  size_t room;   /* values that tables may still announce */
  uint32_t next; /* the object whose contents are being read */
  uint8_t stage;
  int i, count; /* of a function: upvalues that are done, of how many */
  const char *problem;
};

/* fn_read_begin begins with the function that the payload describes, and is followed by calls of fn_read_on
 * until that returns neither FN_GOES_ON nor FN_TEXT.  At FN_TEXT a string of the bytes at f->text is to be
 * pushed.  At FN_DONE the function is at the top, and nothing else was pushed.  Refuses a payload that is
 * damaged, was written by another version of Lua, or refers to another value of its message that has not been
 * decoded before.  Both raise when memory of Lua runs out. */
void fn_read_begin(lua_State *L, struct fn_reader *f, const char *payload, size_t len);
enum fn_step fn_read_on(lua_State *L, struct fn_reader *f, int *work);

/* Can processes of one isolate share the value instead of copying it?  That holds for library functions and
 * library tables, and for all values that are neither tables nor functions. */
bool fn_is_plain(lua_State *L, int index, struct isolate *iso);

/* Pushes the globals of the running process, and a copy of the function at index for another process of this
 * isolate, if each of its upvalues is plain (fn_is_plain) or the table of globals; else pushes nothing and
 * returns NULL.  The copy still has the globals of the running process: fn_set_globals changes them.  Raises
 * when memory runs out. */
struct factory *fn_clone(lua_State *L, int index);

/* A function with all that it reaches, if that is not much: as many objects and values as are copied in a
 * tenth of a millisecond. */
enum { FN_GRAPH_OBJECTS = 192, FN_GRAPH_KEYS = 256, FN_GRAPH_PLACES = 512, FN_GRAPH_VALUES = 1024 };
struct fn_graph {
  struct isolate *iso;
  int first;   /* stack index of the first object, the function; the others follow */
  int objects; /* so many */
  int keys, values;
  struct fn_met { /* an object or a cell */
    const void *key;
    uint32_t number;
  } met[FN_GRAPH_PLACES];
  struct fn_object {
    struct factory *factory; /* of a function; NULL: it is a table, */
    int array, pairs;        /* with so many values in its parts */
  } object[FN_GRAPH_OBJECTS];
};

/* Pushes the objects that the function at index reaches, and returns true; or pushes nothing and returns
 * false: it reaches too much, a long string, or a value that cannot be copied.  Raises when memory runs out.
 */
bool fn_graph_scan(lua_State *L, int index, struct fn_graph *g);

/* As a Lua function: copies the objects, which are followed by the globals that the copy is to have, and by
 * the graph as light userdata.  Returns the copy of the function.  Nothing may run between the scan and the
 * copy. */
int fn_graph_copy(lua_State *L);

/* Sets each upvalue of the function that is the table at `from` to the table at `to` (positive indices). */
void fn_set_globals(lua_State *L, int function, int from, int to);

#endif
