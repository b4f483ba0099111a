/* An order stays in p->order until its code is loaded; then spawn_answer answers the order and frees it. */
#include "vm/bind/boot.h"

#include "core/procname.h"
#include "vm/bind/bind.h"
#include "vm/bind/require.h"
#include "vm/copy/copy.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/process/spawn.h"

#include <lauxlib.h>
#include <string.h>

/* Refuses the order: its sender gets the reason, so the process ends without a message to its group leader.
 */
static int refuse(struct process *p, const char *code, const char *why) {
  spawn_answer(p, term_build("bss", 0, code, why));
  p->quiet = true;
  process_doom(p, term_build("s", "normal"));
  return 0;
}

static int finished(lua_State *L, int status, lua_KContext context) {
  (void)L, (void)status, (void)context;
  return 0;
}

static int run(lua_State *L, int nargs) {
  lua_callk(L, nargs, 0, 0, finished);
  return 0;
}

static int answer_and_run(lua_State *L, int nargs, lua_KContext context) {
  (void)context;
  spawn_answer(process_of(L), NULL);
  return run(L, nargs);
}

/* Reads the values of an order, the last ones of its term. */
static int read_values(lua_State *L, struct process *p, struct term_reader r, copy_pushed *then) {
  enum { BEFORE = 5 }; /* spawn.h */
  return copy_in_then(L, p->order->term, r, p->order->term->count - BEFORE, then, 0);
}

/* Calls the first one of the values with the others. */
static int run_function(lua_State *L, int n, lua_KContext context) {
  return answer_and_run(L, n - 1, context);
}

/* Replaces the module at the top by one of its functions.  Returns NULL, or what is wrong. */
static const char *pick_function(lua_State *L, const char *module, const char *function) {
  if (lua_istable(L, -1)) {
    lua_pushstring(L, function);
    lua_gettable(L, -2);
    lua_replace(L, -2);
    if (lua_isfunction(L, -1)) return NULL;
  }
  return lua_pushfstring(L, "module '%s' has no function '%s'", module, function);
}

static void push_str(lua_State *L, struct term_reader *r) {
  struct term_value v = term_next(r);
  lua_pushlstring(L, v.s, v.len);
}

/* Stack: the module's name, the function's name, the module. */
static int boot_module(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  struct process *p = process_of(L);
  const char *problem = pick_function(L, lua_tostring(L, 1), lua_tostring(L, 2));
  if (problem) return luaL_error(L, "%s", problem);
  struct term_reader r = spawn_read_order(p->isolate->config, p->order).rest;
  term_skip(&r), term_skip(&r);
  return read_values(L, p, r, answer_and_run);
}

static int boot_host(lua_State *L, struct process *p);

/* An error raised here ends the new process as an error of its code would. */
int boot_process(lua_State *L) {
  struct process *p = process_of(L);
  struct spawn_order o = spawn_read_order(p->isolate->config, p->order);
  if (o.host) return boot_host(L, p);
  struct term_reader peek = o.rest;
  if (term_next(&peek).tag == TERM_NIL) {
    term_skip(&o.rest), term_skip(&o.rest);
    return read_values(L, p, o.rest, run_function);
  }
  push_str(L, &o.rest);
  push_str(L, &o.rest);
  lua_pushcfunction(L, require_module);
  lua_pushvalue(L, 1);
  lua_callk(L, 1, 1, 0, boot_module);
  return boot_module(L, LUA_OK, 0);
}

/* --- a host's order --- */

static bool find_text(lua_State *L, struct term_reader spec, const char *key) {
  struct term_reader r;
  struct term_value v;
  if (!term_map_find(spec, key, &r) || (v = term_next(&r)).tag != TERM_STR) return false;
  lua_pushlstring(L, v.s, v.len);
  return true;
}

/* The arguments, and their number. */
static struct term_reader find_arguments(struct term_reader spec, uint32_t *count) {
  struct term_reader r, next;
  *count = 0;
  if (!term_map_find(spec, "args", &r)) return (struct term_reader){0};
  next = r;
  term_skip(&next);
  struct term_value list = term_next(&r);
  if (list.tag == TERM_LIST) *count = list.count;
  return list.tag == TERM_LIST ? (struct term_reader){r.at, next.at} : (struct term_reader){0};
}

static int run_host(lua_State *L, int nargs, lua_KContext context) {
  (void)context;
  struct process *p = process_of(L);
  term_unref(p->reply);
  p->reply = NULL;
  return run(L, nargs);
}

/* Calls the function at the top.  Before its first instruction the process has its name and ties, and the
 * order is answered. */
static int begin(lua_State *L, struct process *p) {
  const struct vm_config *config = p->isolate->config;
  struct spawn_order o = spawn_read_order(config, p->order);
  struct error e = {0};
  if (find_text(L, o.rest, "name")) {
    char why[NAMES_REFUSAL_SIZE];
    const char *name = lua_tostring(L, -1);
    int rc = procname_check(name, &e);
    if (rc == 0) rc = names_register(config->names, name, p->pid, 0);
    if (rc == ERR_NAME_TAKEN)
      return refuse(p, err_wire(rc), lua_pushfstring(L, "the name '%s' is taken", name));
    if (rc) return refuse(p, err_wire(rc), e.code ? e.text : names_refusal(config->names, rc, why));
    lua_pop(L, 1);
  }
  if (spawn_tie(p, &o)) return refuse(p, "out_of_memory", "out of memory");
  /* The linked process may have ended by now; it, or its node, then answers the LINK with an exit signal. */
  npid call = o.link == p->order->from ? p->order->ref : NPID_NONE;
  if (o.link != NPID_NONE && isolate_tie(p->isolate, SIGNAL_LINK, o.link, p->pid, call, o.epoch))
    return refuse(p, "out_of_memory", "out of memory");
  /* spawn_answer frees the order, but the arguments are read from its term after that.  p->reply keeps it:
   * the end of the process drops it when there is no memory for the arguments. */
  term_unref(p->reply);
  p->reply = term_ref(p->order->term);
  spawn_answer(p, term_build("bp", 1, p->pid));
  uint32_t n;
  struct term_reader r = find_arguments(o.rest, &n);
  return copy_in_then(L, p->reply, r, n, run_host, 0);
}

static int load_source(lua_State *L, struct process *p, struct term_reader spec) {
  size_t n;
  const char *source = lua_tolstring(L, -1, &n);
  const char *chunk = find_text(L, spec, "chunk") ? lua_tostring(L, -1) : "lua";
  if (luaL_loadbufferx(L, source, n, lua_pushfstring(L, "@%s", chunk), "t") != LUA_OK)
    return refuse(p, "code", bind_text(L, -1));
  process_push_env(L, p);
  lua_setupvalue(L, -2, 1);
  return begin(L, p);
}

static int function_loaded(lua_State *L, int n, lua_KContext context) {
  (void)n, (void)context;
  struct process *p = process_of(L);
  if (!lua_isfunction(L, -1))
    return refuse(p, "out_of_memory", "the memory of a process has no room for 'fn'");
  const char *why = copy_why_not(L, lua_gettop(L));
  return why ? refuse(p, "code", why) : begin(L, p);
}

static int load_function(lua_State *L, struct process *p, struct term_reader fn) {
  struct term_reader end = fn, peek = fn;
  if (term_next(&peek).tag != TERM_FN) return refuse(p, "code", "'fn' is no function");
  term_skip(&end);
  return copy_in_then(L, p->order->term, (struct term_reader){fn.at, end.at}, 1, function_loaded, 0);
}

/* Stack: the module's name, the function's name, the module or an error. */
static int host_module(lua_State *L, int status, lua_KContext context) {
  (void)context;
  struct process *p = process_of(L);
  if (status != LUA_OK && status != LUA_YIELD) return refuse(p, "code", bind_text(L, -1));
  const char *problem = pick_function(L, lua_tostring(L, 1), lua_tostring(L, 2));
  return problem ? refuse(p, "code", problem) : begin(L, p);
}

static int boot_host(lua_State *L, struct process *p) {
  struct term_reader spec = spawn_read_order(p->isolate->config, p->order).rest, fn;
  if (find_text(L, spec, "lua")) return load_source(L, p, spec);
  if (term_map_find(spec, "fn", &fn)) return load_function(L, p, fn);
  if (!find_text(L, spec, "module") || !find_text(L, spec, "function"))
    return refuse(p, "usage", "a spawn: expected \"lua\", \"fn\", or \"module\" and \"function\"");
  lua_pushcfunction(L, require_module);
  lua_pushvalue(L, 1);
  return host_module(L, lua_pcallk(L, 1, 1, 0, 0, host_module), 0);
}
