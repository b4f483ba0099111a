/* Processes: self, spawning, links, monitors, exit signals. */
#include "vm/bind/bind.h"

#include "vm/copy/copy.h"
#include "vm/process/info.h"
#include "vm/process/isolate.h"
#include "vm/sched/preempt.h"
#include "vm/process/process.h"
#include "vm/process/signals.h"
#include "vm/process/ties.h"
#include "vm/sched/deliver.h"

#include <string.h>

static int self(lua_State *L) {
  copy_push_npid(L, process_of(L)->pid);
  return 1;
}

static int spawn(lua_State *L) {
  return bind_spawn(L, 1, (struct bind_child){.monitor = NPID_NONE});
}

static int spawn_link(lua_State *L) {
  return bind_spawn(L, 1, (struct bind_child){.link = true, .monitor = NPID_NONE});
}

static int spawn_monitor(lua_State *L) {
  return bind_spawn(L, 1, (struct bind_child){.monitor = bind_new_ref(process_of(L))});
}

/* The priority that the string at index names; an error about argument 1 when there is none of that name. */
static enum process_priority check_priority(lua_State *L, int index) {
  const char *word = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : "";
  for (unsigned i = 0; i < PRIORITIES; i++)
    if (!strcmp(word, process_priority_word(i))) return (enum process_priority)i;
  luaL_argerror(L, 1, "the priority 'low', 'normal' or 'high' expected");
  return PRIORITY_NORMAL; /* luaL_argerror does not return */
}

/* Reads and removes the options of spawn_opt, which are data: read without metamethods. */
static struct bind_child check_options(lua_State *L) {
  struct bind_child how = {.monitor = NPID_NONE};
  bool monitor = false;
  luaL_checktype(L, 1, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    bool flag = lua_isboolean(L, -1);
    if (!strcmp(key, "link") && flag) {
      how.link = lua_toboolean(L, -1);
    } else if (!strcmp(key, "monitor") && flag) {
      monitor = lua_toboolean(L, -1);
    } else if (!strcmp(key, "priority")) {
      how.priority = check_priority(L, -1);
    } else {
      luaL_argerror(L, 1, "the options are link and monitor, booleans, and priority");
    }
  }
  lua_remove(L, 1);
  if (monitor) how.monitor = bind_new_ref(process_of(L));
  return how;
}

static int spawn_opt(lua_State *L) {
  return bind_spawn(L, 1, check_options(L));
}

static int priority(lua_State *L) {
  struct process *p = process_of(L);
  unsigned before = p->priority;
  if (!lua_isnoneornil(L, 1)) process_set_priority(p, check_priority(L, 1));
  lua_pushstring(L, process_priority_word(before));
  return 1;
}

static int link(lua_State *L) {
  struct process *p = process_of(L);
  npid other = bind_check_pid(L, 1);
  if (other == p->pid || process_linked(p, other)) return 0;
  uint32_t epoch = isolate_epoch(p->isolate, other);
  int rc = process_may_tie_to(p, other) ? process_link(p, other, epoch) : ERR_BUSY;
  if (rc) return bind_raise(L, rc, LIMIT_TIES);
  if (isolate_tie(p->isolate, SIGNAL_LINK, other, p->pid, NPID_NONE, epoch)) {
    process_link_gone(p, other);
    return luaL_error(L, "out of memory");
  }
  return 0;
}

static int unlink(lua_State *L) {
  struct process *p = process_of(L);
  npid other = bind_check_pid(L, 1);
  if (!process_linked(p, other)) return 0;
  npid ref = isolate_ref(p->isolate);
  if (process_unlink(p, other, ref)) return luaL_error(L, "out of memory");
  bind_signal(L, SIGNAL_UNLINK, other, ref, NULL);
  return 0;
}

/* The pid to monitor, or NPID_NONE for a name that no process has: both give the same DOWN. */
static npid monitored(lua_State *L, int arg) {
  if (lua_type(L, arg) != LUA_TSTRING) return bind_check_pid(L, arg);
  return bind_whereis(L, process_of(L)->isolate->config->names, arg);
}

static int monitor(lua_State *L) {
  struct process *p = process_of(L);
  bool alias = lua_toboolean(L, 2);
  npid other = monitored(L, 1), ref = bind_new_ref(p);
  if (other == p->pid) { /* as in Erlang, a monitor of oneself does nothing */
    if (alias) return luaL_argerror(L, 1, "a process has no alias for itself");
    copy_push_npid(L, ref);
    return 1;
  }
  bind_monitor(L, ref, other, "noproc", alias);
  copy_push_npid(L, ref);
  return 1;
}

/* Removes the DOWN of a monitor from the mailbox, if it has arrived. */
static void flush_down(struct process *p, npid ref) {
  struct signal **at = &p->mailbox.first;
  while (*at) {
    struct term_reader r = term_read((*at)->term);
    struct term_value word = term_next(&r), second = term_next(&r);
    bool down = word.tag == TERM_STR && word.len == 4 && memcmp(word.s, "DOWN", 4) == 0;
    if (down && second.tag == TERM_REF && second.pid == ref) {
      process_take(p, at);
      return;
    }
    at = &(*at)->next;
  }
}

static int demonitor(lua_State *L) {
  struct process *p = process_of(L);
  npid ref = bind_check_ref(L, 1);
  if (lua_toboolean(L, 2)) bind_check_takes(L);
  npid other = process_end_monitor(p, ref);
  if (other == NPID_NONE && lua_toboolean(L, 2)) flush_down(p, ref);
  lua_pushboolean(L, other != NPID_NONE);
  return 1;
}

/* Leaves the code of a process that ends.  Where the code cannot yield, the hook raises an error at every
 * instruction, until the callbacks of C functions are left. */
static int leave(lua_State *L) {
  if (lua_isyieldable(L)) return lua_yield(L, 0);
  preempt_now(L);
  return luaL_error(L, "the process ends");
}

static int exit_self(lua_State *L, struct term *reason, lua_KContext context) {
  (void)context;
  process_doom(process_of(L), reason);
  return leave(L);
}

static int exit_other(lua_State *L, struct term *reason, lua_KContext to) {
  bind_signal(L, SIGNAL_EXIT, (npid)to, NPID_NONE, reason);
  if (process_of(L)->preemptible.end) return leave(L);
  lua_pushboolean(L, 1);
  return 1;
}

static int exit_process(lua_State *L) {
  if (lua_gettop(L) < 2) {
    lua_settop(L, 1);
    if (lua_isnil(L, 1)) lua_pushliteral(L, "normal"), lua_replace(L, 1);
    return copy_term_then(L, "reason", 1, exit_self, 0);
  }
  npid to = bind_check_pid(L, 1);
  lua_settop(L, 2);
  return copy_term_then(L, "reason", 2, exit_other, (lua_KContext)to);
}

static int interrupt(lua_State *L) {
  npid to = bind_check_pid(L, 1);
  if (to == process_of(L)->pid) return luaL_argerror(L, 1, "another process expected");
  bind_signal(L, SIGNAL_CALL, to, NPID_NONE, term_build("s", "interrupt"));
  return 0;
}

static int trap_exit(lua_State *L) {
  struct process *p = process_of(L);
  bool before = p->trap_exit;
  luaL_checktype(L, 1, LUA_TBOOLEAN);
  p->trap_exit = lua_toboolean(L, 1);
  lua_pushboolean(L, before);
  return 1;
}

static int lives(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  bind_reply(L, &ok);
  lua_pushboolean(L, ok);
  return 1;
}

/* Calls the process itself, so that signals sent to it before, such as an exit signal, arrive first. */
static int alive(lua_State *L) {
  struct process *p = process_of(L);
  npid other = bind_check_pid(L, 1);
  if (!npid_is_local(other)) return luaL_argerror(L, 1, "a pid of this node expected");
  bool here = vm_alive(p->isolate->vm, other);
  if (here && other != p->pid) return bind_call(L, other, term_build("s", "alive"), lives, 0);
  lua_pushboolean(L, here);
  return 1;
}

static int map_or_nil(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  int n = bind_reply(L, &ok);
  if (ok) return n;
  lua_pushnil(L);
  return 1;
}

static int info(lua_State *L) {
  npid pid = bind_check_pid(L, 1); /* before the term is made: an error would leak it */
  return bind_call(L, pid, term_build("s", "process_info"), map_or_nil, 0);
}

enum { TRACED_LEVELS = 10000 /* a traceback walks the stack some twenty times */ };

/* The message handler of traced: replaces the error by a table of the error and the traceback, which only
 * this function marks so. */
static int note_trace(lua_State *L) {
  lua_createtable(L, 2, 0);
  luaL_setmetatable(L, "traced error");
  lua_insert(L, 1);
  lua_rawseti(L, 1, 1);
  lua_Debug ar;
  if (lua_getstack(L, TRACED_LEVELS, &ar)) return 1;
  luaL_traceback(L, L, NULL, 1);
  lua_rawseti(L, 1, 2);
  return 1;
}

/* Stack: the handler, true, and the results or the error.  Lua does not call the handler where memory runs
 * out. */
static int trace_finished(lua_State *L, int status, lua_KContext context) {
  (void)context;
  if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L) - 1;
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  if (!lua_getmetatable(L, -1)) return 2;
  luaL_getmetatable(L, "traced error");
  bool traced = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  if (!traced) return 2;
  lua_rawgeti(L, -1, 1);
  lua_rawgeti(L, -2, 2);
  lua_remove(L, -3);
  return 3;
}

static int traced(lua_State *L) {
  luaL_checkany(L, 1);
  luaL_newmetatable(L, "traced error");
  lua_pop(L, 1);
  lua_pushcfunction(L, note_trace);
  lua_insert(L, 1);
  lua_pushboolean(L, 1);
  lua_insert(L, 2);
  return trace_finished(L, lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 1, 0, trace_finished), 0);
}

const struct bind_function bind_process[] = {
    {"self", self, "self()", "Returns the pid of the running process."},
    {"spawn", spawn, "spawn(f, ...)\nspawn(module, function, ...)",
     "Starts a process that calls the function with the arguments, and returns its pid."},
    {"spawn_link", spawn_link, "spawn_link(f, ...)\nspawn_link(module, function, ...)",
     "Starts a process that is linked to the caller, and returns its pid."},
    {"spawn_monitor", spawn_monitor, "spawn_monitor(f, ...)\nspawn_monitor(module, function, ...)",
     "Starts a process that the caller monitors, and returns its pid and the reference."},
    {"spawn_opt", spawn_opt, "spawn_opt(options, f, ...)\nspawn_opt(options, module, function, ...)",
     "Starts a process with the options link, monitor and priority, and returns its pid, and the reference."},
    {"priority", priority, "priority([level])",
     "Sets the caller's priority to low, normal or high, and returns the former one."},
    {"link", link, "link(pid)",
     "Links the caller and the process: when one ends, the other gets an exit signal with the reason."},
    {"unlink", unlink, "unlink(pid)", "Removes the link, whichever of the two made it."},
    {"monitor", monitor, "monitor(pid, [alias])",
     "Monitors a process, given by its pid or its name on this node, and returns a reference."},
    {"demonitor", demonitor, "demonitor(ref, [flush])",
     "Removes a monitor, and returns whether it was still there."},
    {"exit", exit_process, "exit([reason])\nexit(pid, reason)",
     "Ends the caller, or sends an exit signal to a process."},
    {"trap_exit", trap_exit, "trap_exit(boolean)",
     "Sets whether exit signals become messages to the caller, and returns the former setting."},
    {"interrupt", interrupt, "interrupt(pid)",
     "Raises an error in another process, where it waits or computes."},
    {"traced", traced, "traced(f, ...)",
     "Calls a function as pcall does, but returns the traceback of an error as a third value."},
    {"alive", alive, "alive(pid)", "Returns whether a process of this node is alive."},
    {"process_info", info, "process_info(pid)",
     "Returns a table of what is known of a process of any node, or nil when there is no such process."},
    {NULL, NULL, NULL, NULL},
};
