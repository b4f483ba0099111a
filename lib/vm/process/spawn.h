/* spawn: how a process comes to be, and its first steps.
 *
 * Within an isolate a function with plain upvalues is cloned straight onto the new coroutine.  Everything
 * else is an order: a SPAWN signal to the pid that the process will have, which carries what to run as a
 * term: [leader, link, ref or nil, FN or nil, module, function, LIST of arguments]     from a green thread
 *   ["spawn", spec]                                                                from the host (vm_spawn)
 */
#ifndef VM_PROCESS_SPAWN_H
#define VM_PROCESS_SPAWN_H

#include "core/signal.h"

#include <lua.h>
#include <stdbool.h>

struct isolate;
struct process;

/* For the running process: spawns what the stack says from index first on, a function and its arguments or
 * the names of a module and one of its functions and the arguments.  Ties to it are made on both sides;
 * monitor: a fresh reference, or NPID_NONE.  Raises. */
npid spawn_process(lua_State *L, int first, bool link, npid monitor);

/* An order has reached its isolate; consumes it. */
void spawn_arrived(struct isolate *iso, struct signal *order);

/* An order that cannot be carried out; consumes it. */
void spawn_lost(struct isolate *iso, struct signal *order, const char *why);

/* A process ends before its order has begun: whoever waits for the reply is told. */
void spawn_failed(struct process *p, const char *why);

/* Is there a function, or a module's and a function's name, at index? Raises if not. */
bool spawn_is_function(lua_State *L, int index);

#endif
