/* bind: what Lua code of a process can call; one file a topic, each a table of functions.  Helpers raise. */
#ifndef VM_BIND_H
#define VM_BIND_H

#include "core/names.h"
#include "core/signal.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

/* A function of the language.  Its row registers the function, and says how to call it and what it does.
 *
 * usage has one call a line, with optional arguments in [brackets].  In node-lua(7) the function's entry has
 * the same calls and begins with the same sentence: tests/unit/test_bind_rows.c compares the two. */
struct bind_function {
  const char *name;
  lua_CFunction call; /* NULL: the prelude defines the function */
  const char *usage, *sentence;
};

/* Each table ends with a row without a name. */
extern const struct bind_function bind_process[]; /* self spawn link exit … */
extern const struct bind_function bind_message[]; /* send receive receive_match sleep … */
extern const struct bind_function bind_names[];   /* register whereis … */
extern const struct bind_function bind_global[];  /* global.* */
extern const struct bind_function bind_node[];    /* node.* */
extern const struct bind_function bind_output[];  /* puts print inspect group_leader */
extern const struct bind_function bind_command[]; /* exec sh ls */
extern const struct bind_function bind_require[]; /* require */

/* All of these tables, each with the library that the functions are in ("": they are globals).  The last
 * entry has no functions. */
struct bind_library {
  const char *name;
  const struct bind_function *functions;
};
extern const struct bind_library bind_libraries[];

/* send, for global.send. */
int bind_send(lua_State *L);

/* Arguments. */
npid bind_check_pid(lua_State *L, int arg);
npid bind_check_ref(lua_State *L, int arg);
npid bind_to_pid(lua_State *L, int index); /* NPID_NONE when it is none */

/* Who has the name, the string at index; or NPID_NONE. */
npid bind_whereis(lua_State *L, struct names *table, int index);

/* Milliseconds from now as a deadline; nil or none: TIMER_NEVER. */
int64_t bind_check_deadline(lua_State *L, int arg);

/* An error's value as text, which stays valid while the value is on the stack; may push. */
const char *bind_text(lua_State *L, int index);

/* Refuses where the process cannot be suspended (inside a callback of a C function). */
void bind_check_suspends(lua_State *L, const char *what);

/* Refuses to take from the mailbox inside a predicate of receive_match, which looks at it. */
void bind_check_takes(lua_State *L);

/* After the running process was charged for what is kept for it outside of Lua's heap: ends it if that is
 * more than it may have. */
void bind_check_memory(lua_State *L);

/* Sends a signal of the running process; owns term. */
void bind_signal(lua_State *L, enum signal_kind kind, npid to, npid ref, struct term *term);

/* The running process watches another, under ref; for nobody (NPID_NONE) DOWN comes, with the word `gone`. */
void bind_monitor(lua_State *L, npid ref, npid other, const char *gone);

/* For the running process: spawns what the stack says from index first on, a function and its arguments or
 * the names of a module and one of its functions and the arguments.  Ties to it are made on both sides;
 * monitor: a fresh reference, or NPID_NONE.  Raises. */
npid bind_spawn(lua_State *L, int first, bool link, npid monitor);

/* Is there a function, or a module's and a function's name, at index? Raises if not. */
bool bind_is_function(lua_State *L, int index);

/* A CALL of the running process, which waits for the reply: `return bind_call(…)`.  Afterwards then runs, and
 * calls bind_reply.  Owns term. */
int bind_call(lua_State *L, npid to, struct term *term, lua_KFunction then, lua_KContext context);

/* Pushes the values of the reply and returns their number.  *ok is false when the call was refused: the
 * values are then two, the wire name of the error and its text. */
int bind_reply(lua_State *L, bool *ok);

/* The same, where a refusal is an error of the caller: raises its text, with the caller's position. */
int bind_take_reply(lua_State *L);

/* The plain `then`: the values, or an error with the text. */
int bind_results(lua_State *L, int status, lua_KContext context);

/* Pairs of the MAPs that the kernel takes: a pid under a key; and who watches the new process, under which
 * reference. */
void bind_put_pid(struct term_writer *w, const char *key, npid pid);
void bind_put_monitor(struct term_writer *w, npid self, npid ref);

/* Output of the running process to a leader, under its window. `return bind_put(…)`. */
int bind_put(lua_State *L, npid leader, const char *stream, const char *bytes, size_t len);

/* io.write. */
int bind_write(lua_State *L);

/* Pushes inspect's text of the value at index, with pids and references as this node writes them. */
void bind_inspect(lua_State *L, int index);

#endif
