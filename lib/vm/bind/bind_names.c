/* Functions for names.  Local names are read and changed in the table of this node.  Global names are read in
 * the table of this node, and changed by a call to the kernel; where the table has not all of them
 * (vm_config.asks_names), those that it lacks are asked for by a call. */
#include "vm/bind/bind.h"

#include "base/buf.h"
#include "core/procname.h"
#include "vm/copy/copy.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/sched/deliver.h"

#include <stdlib.h>
#include <string.h>

static const struct vm_config *config_of(lua_State *L) {
  return process_of(L)->isolate->config;
}

static const char *check_name(lua_State *L, int arg) {
  struct error e = {0};
  const char *name = luaL_checkstring(L, arg);
  if (procname_check(name, &e)) luaL_argerror(L, arg, error_text(&e));
  return name;
}

/* The process may end during the registration, and drop its names before it gets this one.  The name would
 * then stay, so the function checks afterwards that the process lives. */
static int register_name(lua_State *L) {
  struct vm *vm = process_of(L)->isolate->vm;
  struct names *names = config_of(L)->names;
  const char *name = check_name(L, 1);
  npid pid = bind_check_pid(L, 2);
  if (!npid_is_local(pid)) return luaL_argerror(L, 2, "a pid of this node expected (global names take any)");
  char why[NAMES_REFUSAL_SIZE];
  int rc = names_register(names, name, pid, 0);
  if (rc) return luaL_error(L, "the name '%s' cannot be registered: %s", name, names_refusal(names, rc, why));
  if (!vm_alive(vm, pid)) {
    names_drop(names, pid);
    return luaL_error(L, "the name '%s' cannot be registered: no such process", name);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int unregister(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  if (!names_unregister(config_of(L)->names, name, 0))
    return luaL_error(L, "no process has the name '%s'", name);
  lua_pushboolean(L, 1);
  return 1;
}

static int whereis(lua_State *L) {
  luaL_checkstring(L, 1);
  copy_push_npid(L, bind_whereis(L, config_of(L)->names, 1));
  return 1;
}

/* --- lists: the names are copied under the table's lock, and pushed after that, as a push may raise an error
 * --- */

struct listing {
  struct buf names; /* NUL-terminated each */
  size_t count;
};

static void add_name(void *data, const char *name, npid pid, uint64_t token) {
  (void)pid, (void)token;
  struct listing *l = data;
  buf_append(&l->names, name, strlen(name) + 1);
  l->count++;
}

static int push_names(lua_State *L) {
  const struct listing *l = lua_touserdata(L, 1);
  const char *at = l->names.data;
  lua_createtable(L, (int)l->count, 0);
  for (size_t i = 1; i <= l->count; i++, at += strlen(at) + 1) {
    lua_pushstring(L, at);
    lua_rawseti(L, -2, (lua_Integer)i);
  }
  return 1;
}

static int list_names(lua_State *L, struct names *names) {
  struct listing l = {BUF_INIT, 0};
  names_each(names, add_name, &l);
  bool whole = buf_ok(&l.names);
  lua_pushcfunction(L, push_names);
  lua_pushlightuserdata(L, &l);
  int status = whole ? lua_pcall(L, 1, 1, 0) : LUA_ERRMEM;
  buf_finish(&l.names);
  return whole && status == LUA_OK ? 1 : luaL_error(L, "out of memory");
}

static int registered(lua_State *L) {
  return list_names(L, config_of(L)->names);
}

const struct bind_function bind_names[] = {
    {"register", register_name, "register(name, pid)", "Gives a process of this node a name on this node."},
    {"unregister", unregister, "unregister(name)", "Removes a name from this node."},
    {"whereis", whereis, "whereis(name)", "Returns the pid that has the name on this node, or nil."},
    {"registered", registered, "registered()", "Returns a list of all names on this node."},
    {NULL, NULL, NULL, NULL},
};

/* --- global --- */

static int global_call(lua_State *L, const char *op) {
  const char *name = check_name(L, 1);
  return bind_call(L, NPID_KERNEL, term_build("ssp", op, name, bind_check_pid(L, 2)), bind_results, 0);
}

static int global_register(lua_State *L) {
  return global_call(L, "register");
}
static int global_re_register(lua_State *L) {
  return global_call(L, "re_register");
}

static int global_unregister(lua_State *L) {
  return bind_call(L, NPID_KERNEL, term_build("ss", "unregister", check_name(L, 1)), bind_results, 0);
}

/* Is a name that the table lacks asked for?  A text that is no name of a process belongs to none. */
static bool is_asked_for(lua_State *L, const char *name) {
  return config_of(L)->asks_names && !procname_check(name, NULL);
}

static int ask_for(lua_State *L, const char *name, lua_KFunction then, lua_KContext context) {
  return bind_call(L, NPID_KERNEL, term_build("ss", "whereis", name), then, context);
}

/* The value of the reply, pid or token, with that number; nil when no process has the name. */
static int value_found(lua_State *L, int status, lua_KContext number) {
  (void)status;
  int n = bind_take_reply(L);
  if (n < number)
    lua_pushnil(L);
  else
    lua_pushvalue(L, (int)(number - n - 1));
  return 1;
}

static int global_whereis(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  npid pid = bind_whereis(L, config_of(L)->globals, 1);
  if (pid == NPID_NONE && is_asked_for(L, name)) return ask_for(L, name, value_found, 1);
  copy_push_npid(L, pid);
  return 1;
}

static int global_token(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  uint64_t token = 0;
  bool found = names_whereis(config_of(L)->globals, name, &token) != NPID_NONE;
  if (!found && is_asked_for(L, name)) return ask_for(L, name, value_found, 2);
  if (found)
    lua_pushinteger(L, (lua_Integer)token);
  else
    lua_pushnil(L);
  return 1;
}

static int global_names(lua_State *L) {
  return list_names(L, config_of(L)->globals);
}

/* Calls send with the pid in the place of the name, and returns the pid. */
static int global_sent(lua_State *L, int status, lua_KContext pid) {
  (void)status;
  copy_push_npid(L, (npid)pid);
  return 1;
}

static int send_to(lua_State *L, npid pid) {
  if (pid == NPID_NONE) return luaL_error(L, "no process has the global name '%s'", lua_tostring(L, 1));
  copy_push_npid(L, pid);
  lua_replace(L, 1);
  lua_pushcfunction(L, bind_send);
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, 0, (lua_KContext)pid, global_sent);
  return global_sent(L, LUA_OK, (lua_KContext)pid);
}

/* Sends to the process that the reply names. */
static int send_found(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  int n = bind_take_reply(L);
  npid pid = n ? bind_check_pid(L, -n) : NPID_NONE;
  lua_pop(L, n);
  return send_to(L, pid);
}

static int global_send(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  npid pid = bind_whereis(L, config_of(L)->globals, 1);
  if (pid == NPID_NONE && is_asked_for(L, name)) return ask_for(L, name, send_found, 0);
  return send_to(L, pid);
}

const struct bind_function bind_global[] = {
    {"register_name", global_register, "global.register_name(name, pid)",
     "Gives a process a name in the whole cluster, and returns true, or false when the name is taken."},
    {"re_register_name", global_re_register, "global.re_register_name(name, pid)",
     "Gives a process a name in the whole cluster, which whoever had the name loses."},
    {"unregister_name", global_unregister, "global.unregister_name(name)",
     "Removes a name from the cluster, and returns whether a process had it."},
    {"whereis_name", global_whereis, "global.whereis_name(name)",
     "Returns the pid that has the name in the cluster, or nil."},
    {"token", global_token, "global.token(name)",
     "Returns the token of the registration, or nil. Each later registration of a name has a higher one."},
    {"registered_names", global_names, "global.registered_names()",
     "Returns a list of all names in the cluster."},
    {"send", global_send, "global.send(name, ...)",
     "Sends a message to the process that has the name in the cluster, and returns its pid."},
    {NULL, NULL, NULL, NULL},
};
