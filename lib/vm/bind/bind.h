/* bind: the functions of the process language that are in C, one file for each topic, with a table of rows;
 * and the helpers that these files share, which raise errors of Lua.
 *
 * Called by the thread that runs the isolate, for the process that runs. */
#ifndef VM_BIND_H
#define VM_BIND_H

#include "core/names.h"
#include "core/signal.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

/* A row: it registers a function of the language, and says how to call the function and what it does.
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

/* All of these tables, each with the library that has the functions ("": they are globals).  The last entry
 * has no functions. */
struct bind_library {
  const char *name;
  const struct bind_function *functions;
};
extern const struct bind_library bind_libraries[];

/* The function send of the language; global.send calls it.  send_all has a file of its own. */
int bind_send(lua_State *L);
int bind_send_all(lua_State *L);

/* Must the sender wait for room at the receiver, a pid or an alias?  near: the process, if it is of the same
 * isolate.  If so, registers the sender, which is woken when there may be room, and then ends p->room. */
bool bind_awaits_room(lua_State *L, struct process *p, const struct process *near, npid to);

/* As bind_signal, for messages, which may be long (signal_is_long).  True: the signal is long and goes to
 * another node, so the process has begun to wait until it was sent.  The caller then yields, and ends p->room
 * as it goes on. */
bool bind_deliver(lua_State *L, enum signal_kind kind, npid to, npid ref, struct term *term);

/* bind_deliver as the last act of a function without results, to be used as `return bind_message_to(…)`. */
int bind_message_to(lua_State *L, enum signal_kind kind, npid to, npid ref, struct term *term);

/* A loop in C reads bind_now as it begins, and asks bind_gives_way from time to time: true when the slice is
 * over and the process can yield.  It yields then without beginning a wait, and so runs again in its turn. */
unsigned bind_now(lua_State *L);
bool bind_gives_way(lua_State *L, unsigned since);

/* Return the argument, which must be a pid or a reference of this or another node; they raise an error for
 * any other value. */
npid bind_check_pid(lua_State *L, int arg);
npid bind_check_ref(lua_State *L, int arg);
npid bind_to_pid(lua_State *L, int index); /* NPID_NONE for any other value */

/* The pid that has the name, the string at index, in the table; or NPID_NONE. */
npid bind_whereis(lua_State *L, struct names *table, int index);

/* Makes a reference for the process to find in a message, and notes that its mailbox has none with it yet. */
npid bind_new_ref(struct process *p);

/* An argument of milliseconds from now as a deadline by clock_ns; nil or none: TIMER_NEVER. */
int64_t bind_check_deadline(lua_State *L, int arg);

/* The text of an error's value: the string itself, or the text that inspect makes of the value, which is then
 * pushed.  Valid as long as this string or text is on the stack. */
const char *bind_text(lua_State *L, int index);

/* Raises when the process cannot be suspended: inside a callback of a C function.  what: the function that
 * would wait. */
void bind_check_suspends(lua_State *L, const char *what);

/* Raises inside a predicate of receive_match: taking messages there would change the mailbox during the
 * search. */
void bind_check_takes(lua_State *L);

/* Call it after process_charge: when the process is over its memory limit, raises an error and ends the
 * process. */
void bind_check_memory(lua_State *L);

/* Raises the error of a function that has failed with ERR_BUSY, at the bound i, or with ERR_NOMEM. */
int bind_raise(lua_State *L, int code, enum limit i);

/* Sends a signal of the running process; owns term. */
void bind_signal(lua_State *L, enum signal_kind kind, npid to, npid ref, struct term *term);

/* The running process monitors another under ref.  If there is no other (NPID_NONE), a DOWN comes at once,
 * with the reason `gone`.  alias: ref is to be an alias (process_alias). */
void bind_monitor(lua_State *L, npid ref, npid other, const char *gone, bool alias);

/* Spawns a process of this node, and returns the results: its pid, and the reference of the monitor if there
 * is one.  From index first to the top, the stack has a function and its arguments; or the name of a module,
 * the name of one of its functions, and the arguments.  Both sides of the ties are made.  While it copies
 * many arguments, the process gives way to others; so this is to be called as lua_yieldk is, by `return`. */
struct bind_child {
  bool link;    /* to the running process */
  npid monitor; /* a fresh reference under which the running process monitors it, or NPID_NONE */
  enum process_priority priority;
};
int bind_spawn(lua_State *L, int first, struct bind_child how);

/* Returns true for a function at index, false for the names of a module and a function from index on; raises
 * for any other value. */
bool bind_is_function(lua_State *L, int index);

/* Sends a CALL of the running process, which then waits for the reply.  To be used as `return bind_call(…)`:
 * when the reply has come, `then` runs with context, and calls bind_reply or bind_take_reply.  Owns term
 * (NULL: raises). */
int bind_call(lua_State *L, npid to, struct term *term, lua_KFunction then, lua_KContext context);

/* Pushes the values of the reply and returns their number.  *ok is false when the call was refused: the
 * values are then two, the wire name of the error and its text. */
int bind_reply(lua_State *L, bool *ok);

/* As bind_reply, for calls whose refusal is an error of the Lua caller: raises the text of the error, with
 * the position of that caller. */
int bind_take_reply(lua_State *L);

/* A `then` that returns the values of the reply, or raises. */
int bind_results(lua_State *L, int status, lua_KContext context);

/* Write pairs of the MAPs that the kernel takes: a pid under a key; and "monitor", the pid and the reference
 * of a monitor on the new process. */
void bind_put_pid(struct term_writer *w, const char *key, npid pid);
void bind_put_monitor(struct term_writer *w, npid self, npid ref);

/* io.write, as a Lua function. */
int bind_write(lua_State *L);

/* Pushes inspect's text of the value at index, with pids and references as this node writes them. */
void bind_inspect(lua_State *L, int index);

#endif
