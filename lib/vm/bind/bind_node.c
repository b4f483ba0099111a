/* node.*: nodes, and processes on them.  All functions but node.self call the kernel. */
#include "vm/bind/bind.h"

#include "vm/copy/copy.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/process/ties.h"

#include <string.h>

static const char *own_name(lua_State *L) {
  return nodetab_name(process_of(L)->isolate->config->nodes, 0);
}

static int node_self(lua_State *L) {
  lua_pushstring(L, own_name(L));
  return 1;
}

static int node_list(lua_State *L) {
  return bind_call(L, NPID_KERNEL, term_build("s", "nodes"), bind_results, 0);
}

/* Returns true, or false and why. */
static int yes_or_why(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  bind_reply(L, &ok);
  lua_pushboolean(L, ok);
  if (ok) return 1;
  lua_replace(L, -3); /* in the place of the error's wire name, below its text */
  return 2;
}

static int node_connect(lua_State *L) {
  return bind_call(L, NPID_KERNEL, term_build("ss", "connect", luaL_checkstring(L, 1)), yes_or_why, 0);
}

static int node_disconnect(lua_State *L) {
  return bind_call(L, NPID_KERNEL, term_build("ss", "disconnect", luaL_checkstring(L, 1)), bind_results, 0);
}

/* Returns the round trip in microseconds, or nil and why. */
static int ping_result(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  int n = bind_reply(L, &ok);
  if (ok) return n;
  lua_pushnil(L);
  lua_replace(L, -3);
  return 2;
}

static int node_ping(lua_State *L) {
  return bind_call(L, NPID_KERNEL, term_build("ss", "ping", luaL_checkstring(L, 1)), ping_result, 0);
}

/* node.monitor of a name is a monitor of that node's kernel, whose DOWN comes when the node is lost. */
static int monitor_kernel(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  int n = bind_reply(L, &ok);
  struct process *p = process_of(L);
  npid kernel = ok && n > 0 ? bind_to_pid(L, -n) : NPID_NONE, ref = isolate_ref(p->isolate);
  bind_monitor(L, ref, kernel, "noconnection",
               false); /* when the node is lost by now, its DOWN comes at once */
  copy_push_npid(L, ref);
  return 1;
}

static int node_monitor(lua_State *L) {
  if (lua_isboolean(L, 1))
    return bind_call(L, NPID_KERNEL, term_build("sb", "monitor_nodes", lua_toboolean(L, 1)), bind_results, 0);
  const char *name = luaL_checkstring(L, 1);
  return bind_call(L, NPID_KERNEL, term_build("ss", "connect", name), monitor_kernel, 0);
}

/* --- spawning elsewhere ---
 * The stack holds the node's name, then what to run there.  The first call, which a node that is connected by
 * its full name does not need, connects the node and returns the pid of its kernel; the second goes to that
 * kernel, and spawns.  mode: LINK, MONITOR, or both.  For the second call the kernel takes the place of the
 * name, and the reference of the monitor, or nil, comes between it and what to run. */

enum { LINK = 1, MONITOR = 2 };
enum { KERNEL = 1, REF, CODE };

static int spawned(lua_State *L, int status, lua_KContext mode) {
  (void)status;
  int n = bind_take_reply(L);
  lua_settop(L, lua_gettop(L) - n + 1);
  if (!(mode & MONITOR)) return 1;
  lua_pushvalue(L, REF);
  return 2;
}

static void put_arguments_key(const struct copy *c, lua_KContext mode) {
  (void)mode;
  term_put_text(c->w, "args");
}

static void put_names(const struct copy *c) {
  term_put_text(c->w, "module");
  copy_out(c, "module", CODE, CODE);
  term_put_text(c->w, "function");
  copy_out(c, "function", CODE + 1, CODE + 1);
}

/* Writes "spawn" and the spec, up to the function, or if there are names, up to the arguments. */
static uint32_t put_spec(const struct copy *c, lua_KContext mode) {
  lua_State *L = c->L;
  const struct process *p = process_of(L);
  bool function = lua_isfunction(L, CODE), link = mode & LINK, monitor = mode & MONITOR;
  term_put_text(c->w, "spawn");
  size_t at = term_open(c->w, TERM_MAP);
  term_set_count(c->w, at, (uint32_t)((function ? 1 : 2) + 2 + link + monitor));
  if (!function) put_names(c);
  bind_put_pid(c->w, "leader", p->leader);
  if (link) bind_put_pid(c->w, "link", p->pid);
  if (monitor) bind_put_monitor(c->w, p->pid, copy_to_npid(L, REF));
  term_put_text(c->w, function ? "fn" : "args");
  return 2;
}

static int ask_kernel(lua_State *L, struct term *term, lua_KContext mode) {
  struct process *p = process_of(L);
  npid kernel = copy_to_npid(L, KERNEL), ref = copy_to_npid(L, REF);
  int rc = ref == NPID_NONE ? 0 : process_monitor(p, ref, kernel, 0);
  if (rc) {
    term_unref(term);
    return bind_raise(L, rc, LIMIT_TIES);
  }
  p->callee_ref = ref;
  return bind_call(L, kernel, term, spawned, mode);
}

static int spawn_at(lua_State *L, npid kernel, lua_KContext mode) {
  static const struct copy_form function = {.head = put_spec,
                                            .code = 1,
                                            .middle = put_arguments_key,
                                            .list = true,
                                            .what = "argument"},
                                named = {.head = put_spec, .list = true, .what = "argument"};
  copy_push_npid(L, kernel);
  lua_replace(L, KERNEL);
  copy_push_npid(L, mode & MONITOR ? bind_new_ref(process_of(L)) : NPID_NONE);
  lua_insert(L, REF);
  bool is_function = lua_isfunction(L, CODE);
  return copy_form_then(L, CODE + (is_function ? 0 : 2), is_function ? &function : &named, ask_kernel, mode);
}

static int connected(lua_State *L, int status, lua_KContext mode) {
  (void)status;
  int n = bind_take_reply(L);
  npid kernel = n > 0 ? bind_to_pid(L, -n) : NPID_NONE;
  lua_pop(L, n);
  if (kernel == NPID_NONE) return luaL_error(L, "the node has no kernel");
  return spawn_at(L, kernel, mode);
}

static int spawn_on(lua_State *L, lua_KContext mode) {
  const char *name = luaL_checkstring(L, 1);
  bind_is_function(L, 2);
  if (strcmp(name, own_name(L)) == 0) {
    npid ref = mode & MONITOR ? bind_new_ref(process_of(L)) : NPID_NONE;
    return bind_spawn(L, 2, (struct bind_child){.link = mode & LINK, .monitor = ref});
  }
  uint32_t incarnation;
  if (nodetab_find_up(process_of(L)->isolate->config->nodes, name, &incarnation))
    return spawn_at(L, npid_make(incarnation, 0), mode);
  return bind_call(L, NPID_KERNEL, term_build("ss", "connect", name), connected, mode);
}

static int node_spawn(lua_State *L) {
  return spawn_on(L, 0);
}
static int node_spawn_link(lua_State *L) {
  return spawn_on(L, LINK);
}
static int node_spawn_monitor(lua_State *L) {
  return spawn_on(L, MONITOR);
}

const struct bind_function bind_node[] = {
    {"self", node_self, "node.self()", "Returns the name of this node."},
    {"list", node_list, "node.list()", "Returns a list of the nodes to which this node is connected."},
    {"connect", node_connect, "node.connect(name)",
     "Connects this node to another, and returns true, or false and why not."},
    {"disconnect", node_disconnect, "node.disconnect(name)",
     "Closes the connection to a node, and returns whether there was one."},
    {"ping", node_ping, "node.ping(name)",
     "Returns the round trip to a node in microseconds, or nil and why there is none."},
    {"monitor", node_monitor, "node.monitor(boolean)\nnode.monitor(name)",
     "Subscribes the caller to all nodes that come and go, or monitors one node and returns a reference."},
    {"spawn", node_spawn, "node.spawn(name, f, ...)\nnode.spawn(name, module, function, ...)",
     "Starts a process on a node, and returns its pid."},
    {"spawn_link", node_spawn_link,
     "node.spawn_link(name, f, ...)\nnode.spawn_link(name, module, function, ...)",
     "Starts a process on a node, linked to the caller, and returns its pid."},
    {"spawn_monitor", node_spawn_monitor,
     "node.spawn_monitor(name, f, ...)\nnode.spawn_monitor(name, module, function, ...)",
     "Starts a process on a node, monitored by the caller, and returns its pid and the reference."},
    {NULL, NULL, NULL, NULL},
};
