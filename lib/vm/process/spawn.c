/* Invariant: p->order is set from the arrival of an order until its code is loaded; a host's order is
 * answered exactly once, when p->order is let go. */
#include "vm/process/spawn.h"

#include "vm/bind/bind.h"
#include "vm/copy/copy.h"
#include "vm/copy/fn.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/bind/require.h"
#include "vm/sched/state.h"

#include <lauxlib.h>
#include <string.h>

/* --- orders --- */

struct order {
  npid leader, link, lease, watcher, ref;
  uint32_t epoch; /* of the connection by which it is linked */
  bool host;
  struct term_reader rest; /* what to run; of a host's order: the spec */
};

static bool find_pid(struct term_reader spec, const char *key, npid *out) {
  struct term_reader r;
  return term_map_find(spec, key, &r) && term_get_pid(&r, out);
}

static void read_spec(struct order *o) {
  struct term_reader r;
  find_pid(o->rest, "leader", &o->leader);
  find_pid(o->rest, "link", &o->link);
  find_pid(o->rest, "lease", &o->lease);
  if (!term_map_find(o->rest, "monitor", &r) || term_next(&r).tag != TERM_LIST) return;
  struct term_value who = term_next(&r), ref = term_next(&r);
  if (who.tag == TERM_PID && ref.tag == TERM_REF) o->watcher = who.pid, o->ref = ref.pid;
}

/* The connection by which the order came, when that goes to this pid's node; or the present one. */
static uint32_t epoch_of(const struct vm *vm, const struct signal *s, npid pid) {
  bool came = s->epoch && npid_incarnation(pid) == npid_incarnation(s->from);
  return came ? s->epoch : nodetab_epoch(vm->config.nodes, npid_incarnation(pid));
}

static struct order read_order(const struct vm *vm, const struct signal *s) {
  struct order o = {vm->config.console, NPID_NONE, NPID_NONE, NPID_NONE,
                    NPID_NONE,          0,         false,     term_read(s->term)};
  struct term_value first = term_next(&o.rest);
  o.host = first.tag == TERM_STR;
  if (o.host) {
    read_spec(&o);
    o.epoch = epoch_of(vm, s, o.link);
    return o;
  }
  o.leader = first.pid;
  if (term_next(&o.rest).tag == TERM_TRUE) o.link = s->from;
  struct term_value ref = term_next(&o.rest);
  if (ref.tag == TERM_REF) o.watcher = s->from, o.ref = ref.pid;
  return o;
}

static int tie(struct process *p, const struct order *o) {
  if (o->link != NPID_NONE && process_link(p, o->link, o->epoch)) return ERR_NOMEM;
  return o->ref != NPID_NONE ? process_watch(p, o->ref, o->watcher) : 0;
}

static void answer(struct process *p, struct term *term) {
  struct signal *s = p->order;
  p->order = NULL;
  if (s->ref != NPID_NONE) {
    isolate_signal(p->isolate, SIGNAL_REPLY, s->from, p->pid, s->ref, term);
  } else {
    term_unref(term);
  }
  signal_free(s);
}

/* The order is refused: the process ends without a word, as its caller is told why. */
static int refuse(struct process *p, const char *code, const char *why) {
  answer(p, term_build("bss", 0, code, why));
  p->quiet = true;
  process_doom(p, term_build("s", "normal"));
  return 0;
}

void spawn_failed(struct process *p, const char *why) {
  answer(p, term_build("bss", 0, "code", why));
}

void spawn_lost(struct isolate *iso, struct signal *s, const char *why) {
  struct order o = read_order(iso->vm, s);
  uint64_t number = npid_number(s->to);
  ptab_clear(&iso->vm->ptab, number);
  ptab_give(&iso->vm->ptab, &number, 1);
  atomic_fetch_sub(&iso->live, 1);
  if (o.host) {
    vm_signal(iso->vm, SIGNAL_REPLY, s->from, s->to, s->ref, term_build("bss", 0, "out_of_memory", why));
  } else {
    if (o.link != NPID_NONE)
      vm_signal(iso->vm, SIGNAL_LINK_EXIT, o.link, s->to, NPID_NONE, term_build("s", "memory"));
    if (o.ref != NPID_NONE)
      vm_signal(iso->vm, SIGNAL_DOWN, o.watcher, s->to, o.ref, term_build("s", "memory"));
  }
  signal_free(s);
}

/* --- first steps, in the new coroutine --- */

static int finished(lua_State *L, int status, lua_KContext context) {
  (void)L, (void)status, (void)context;
  return 0;
}

static int run(lua_State *L, int nargs) {
  lua_callk(L, nargs, 0, 0, finished);
  return 0;
}

/* The module is at the top: its function takes its place. NULL, or what is wrong. */
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

/* Stack: module's name, function's name, module. */
static int boot_module(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  struct process *p = process_of(L);
  const char *problem = pick_function(L, lua_tostring(L, 1), lua_tostring(L, 2));
  if (problem) return luaL_error(L, "%s", problem);
  struct term_reader r = read_order(p->isolate->vm, p->order).rest;
  term_skip(&r), term_skip(&r), term_skip(&r);
  uint32_t n = term_next(&r).count;
  copy_in_all(L, &r);
  answer(p, NULL);
  return run(L, (int)n);
}

static int boot_host(lua_State *L, struct process *p);

/* In the new process: an error here ends it as any other error would. */
static int boot(lua_State *L) {
  struct process *p = process_of(L);
  struct order o = read_order(p->isolate->vm, p->order);
  if (o.host) return boot_host(L, p);
  struct term_reader peek = o.rest;
  if (term_next(&peek).tag == TERM_FN) {
    copy_in(L, &o.rest);
    term_skip(&o.rest), term_skip(&o.rest);
    uint32_t n = term_next(&o.rest).count;
    copy_in_all(L, &o.rest);
    answer(p, NULL);
    return run(L, (int)n);
  }
  term_skip(&o.rest);
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

static int push_arguments(lua_State *L, struct term_reader spec) {
  struct term_reader r;
  struct term_value list;
  if (!term_map_find(spec, "args", &r) || (list = term_next(&r)).tag != TERM_LIST) return 0;
  luaL_checkstack(L, (int)(list.count < 100000 ? list.count : 100000) + 8, "too many arguments");
  for (uint32_t i = 0; i < list.count; i++) copy_in(L, &r);
  return (int)list.count;
}

/* The function is at the top.  Name, ties and reply come before its first instruction. */
static int begin(lua_State *L, struct process *p) {
  struct vm *vm = p->isolate->vm;
  struct order o = read_order(vm, p->order);
  struct error e = {0};
  if (find_text(L, o.rest, "name")) {
    const char *name = lua_tostring(L, -1);
    int rc = procname_check(name, &e);
    if (rc == 0) rc = names_register(vm->config.names, name, p->pid, 0);
    if (rc == ERR_NAME_TAKEN)
      return refuse(p, err_wire(rc), lua_pushfstring(L, "the name '%s' is taken", name));
    if (rc) return refuse(p, err_wire(rc), e.code ? e.text : names_refusal(rc));
    lua_pop(L, 1);
  }
  if (tie(p, &o)) return refuse(p, "out_of_memory", "out of memory");
  /* Who is linked may be gone by now, and then says so. */
  if (o.link != NPID_NONE && isolate_tie(p->isolate, SIGNAL_LINK, o.link, p->pid, NPID_NONE, o.epoch))
    return refuse(p, "out_of_memory", "out of memory");
  struct term *term = term_ref(p->order->term); /* the arguments are read after the answer */
  answer(p, term_build("bp", 1, p->pid));
  int nargs = push_arguments(L, o.rest);
  term_unref(term);
  return run(L, nargs);
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

static int decode_function(lua_State *L) {
  struct term_reader *r = lua_touserdata(L, 1);
  copy_in(L, r);
  return 1;
}

static int load_function(lua_State *L, struct process *p, struct term_reader fn) {
  lua_pushcfunction(L, decode_function);
  lua_pushlightuserdata(L, &fn);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) return refuse(p, "code", bind_text(L, -1));
  if (!lua_isfunction(L, -1)) return refuse(p, "code", "'fn' is no function");
  return begin(L, p);
}

/* Stack: module's name, function's name, module or error. */
static int host_module(lua_State *L, int status, lua_KContext context) {
  (void)context;
  struct process *p = process_of(L);
  if (status != LUA_OK && status != LUA_YIELD) return refuse(p, "code", bind_text(L, -1));
  const char *problem = pick_function(L, lua_tostring(L, 1), lua_tostring(L, 2));
  return problem ? refuse(p, "code", problem) : begin(L, p);
}

static int boot_host(lua_State *L, struct process *p) {
  struct term_reader spec = read_order(p->isolate->vm, p->order).rest, fn;
  if (find_text(L, spec, "lua")) return load_source(L, p, spec);
  if (term_map_find(spec, "fn", &fn)) return load_function(L, p, fn);
  if (!find_text(L, spec, "module") || !find_text(L, spec, "function"))
    return refuse(p, "usage", "a spawn wants \"lua\", \"fn\", or \"module\" and \"function\"");
  lua_pushcfunction(L, require_module);
  lua_pushvalue(L, 1);
  return host_module(L, lua_pcallk(L, 1, 1, 0, 0, host_module), 0);
}

/* --- arrival --- */

struct arrival {
  struct isolate *iso;
  struct signal *order;
};

/* Who leases it may be gone before the code is loaded, or the code may never be. */
static void lease(struct process *p, npid to) {
  uint32_t epoch = epoch_of(p->isolate->vm, p->order, to);
  if (process_link(p, to, epoch) || isolate_tie(p->isolate, SIGNAL_LINK, to, p->pid, NPID_NONE, epoch))
    process_doom(p, term_build("s", "memory"));
}

/* Protected: nothing is published before the last step that can fail. */
static int arrive(lua_State *L) {
  struct arrival *a = lua_touserdata(L, 1);
  struct order o = read_order(a->iso->vm, a->order);
  struct process *p = process_new(L, a->iso, npid_number(a->order->to), o.leader);
  p->order = a->order;
  a->order = NULL;
  lua_pushcfunction(p->L, boot);
  process_ready(p);
  if (!o.host && tie(p, &o)) process_doom(p, term_build("s", "memory"));
  if (o.lease != NPID_NONE) lease(p, o.lease);
  return 0;
}

void spawn_arrived(struct isolate *iso, struct signal *order) {
  lua_State *L = iso->L;
  struct arrival a = {iso, order};
  lua_pushcfunction(L, arrive);
  lua_pushlightuserdata(L, &a);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK) return;
  lua_pop(L, 1);
  if (a.order) spawn_lost(iso, a.order, "out of memory");
}

/* --- the spawner's side --- */

bool spawn_is_function(lua_State *L, int index) {
  if (lua_isfunction(L, index)) return true;
  if (lua_type(L, index) != LUA_TSTRING || lua_type(L, index + 1) != LUA_TSTRING)
    luaL_argerror(L, index, "a function, or a module's and a function's name, expected");
  return false;
}

static bool all_plain(lua_State *L, int first, int last) {
  for (int i = first; i <= last; i++) {
    int type = lua_type(L, i);
    if (type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TUSERDATA || type == LUA_TTHREAD)
      return false;
  }
  return true;
}

/* The clone at the top and the arguments from first on move to a new coroutine of this isolate. */
static npid start_clone(lua_State *L, struct process *p, int first, int last) {
  struct isolate *iso = p->isolate;
  int clone = lua_gettop(L);
  process_push_env(L, p);
  uint64_t number = isolate_take_number(iso);
  if (!number) luaL_error(L, "too many processes");
  int64_t *meter = iso->heap.meter;
  iso->heap.meter = NULL;
  struct process *q = process_new(L, iso, number, p->leader);
  iso->heap.meter = meter;
  atomic_fetch_add(&iso->live, 1);
  fn_set_globals(L, clone, clone + 1, clone + 2);
  lua_pushvalue(L, clone);
  for (int i = first; i <= last; i++) lua_pushvalue(L, i);
  int n = last - first + 1;
  if (lua_checkstack(q->L, n + 1)) {
    lua_xmove(L, q->L, n + 1);
    q->nargs = n;
    process_ready(q);
  } else {
    process_doom(q, term_build("s", "memory"));
  }
  return q->pid;
}

/* One child at a time stays with its parent: they will talk.  Who spawns several without waiting in between
 * wants them to work at the same time, so they go where other cores can take them. */
static bool stays_home(const struct process *p) {
  bool alone = !p->spawned || p->isolate->vm->schedulers == 1;
  return alone && atomic_load(&p->isolate->live) < ISOLATE_SMALL;
}

static struct term *make_order(lua_State *L, struct process *p, int first, bool link, npid monitor) {
  struct term_writer *w = &p->isolate->writer;
  int last = lua_gettop(L);
  bool function = spawn_is_function(L, first);
  int args = first + (function ? 1 : 2);
  term_writer_clear(w);
  term_put_pid(w, p->leader);
  term_put_bool(w, link);
  if (monitor != NPID_NONE) {
    term_put_pid(w, monitor);
  } else {
    term_put_nil(w);
  }
  if (function) {
    copy_out(L, w, "function", first, first);
    term_put_nil(w), term_put_nil(w);
  } else {
    term_put_nil(w);
    copy_out(L, w, "module", first, first + 1);
  }
  size_t at = term_open(w, TERM_LIST);
  copy_out(L, w, "argument", args, last);
  term_set_count(w, at, (uint32_t)(last - args + 1));
  struct term *t = term_from_writer(w, 7);
  if (!t) copy_failed(L, w);
  return t;
}

static npid send_order(lua_State *L, struct process *p, int first, bool link, npid monitor) {
  struct isolate *home = p->isolate, *iso = stays_home(p) ? home : isolate_elsewhere(home);
  struct term *term = make_order(L, p, first, link, monitor);
  uint64_t number = iso ? isolate_take_number(home) : 0;
  struct signal *s = number ? signal_new(SIGNAL_SPAWN, npid_make(0, number), p->pid, NPID_NONE, term) : NULL;
  if (!s) {
    term_unref(term);
    if (number) isolate_give_number(home, number);
    luaL_error(L, iso && !number ? "too many processes" : "out of memory");
    return NPID_NONE;
  }
  npid pid = s->to;
  ptab_set(&home->vm->ptab, number, iso, NULL);
  atomic_fetch_add(&iso->live, 1);
  if (iso == home) {
    spawn_arrived(iso, s);
  } else if (inbox_push(&iso->inbox, s)) {
    sched_wake(home->vm, iso);
  }
  return pid;
}

static void tie_spawned(lua_State *L, struct process *p, npid pid, bool link, npid monitor) {
  int rc = link ? process_link(p, pid, 0) : 0;
  if (rc == 0 && monitor != NPID_NONE) rc = process_monitor(p, monitor, pid, 0);
  if (rc) luaL_error(L, "out of memory");
}

npid spawn_process(lua_State *L, int first, bool link, npid monitor) {
  struct process *p = process_of(L);
  int last = lua_gettop(L);
  npid pid;
  if (spawn_is_function(L, first) && stays_home(p) && all_plain(L, first + 1, last) && fn_clone(L, first)) {
    pid = start_clone(L, p, first + 1, last);
    struct process *q = isolate_find(p->isolate, pid);
    const struct order o = {.link = link ? p->pid : NPID_NONE, .watcher = p->pid, .ref = monitor};
    if (tie(q, &o)) process_doom(q, term_build("s", "memory"));
  } else {
    pid = send_order(L, p, first, link, monitor);
  }
  p->spawned = true;
  tie_spawned(L, p, pid, link, monitor);
  lua_settop(L, last);
  return pid;
}
