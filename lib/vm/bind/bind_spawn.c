/* Spawning on this node: a function that has not captured much is cloned straight onto a new coroutine of the
 * spawner's isolate, if its arguments are scalars.  Any other process is spawned by an order
 * (process/spawn.h). */
#include "vm/bind/bind.h"

#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/copy/fn.h"
#include "vm/process/budget.h"
#include "vm/process/facts.h"
#include "vm/process/isolate.h"
#include "vm/process/placement.h"
#include "vm/process/process.h"
#include "vm/process/spawn.h"
#include "vm/process/ties.h"

bool bind_is_function(lua_State *L, int index) {
  if (lua_isfunction(L, index)) return true;
  if (lua_type(L, index) != LUA_TSTRING || lua_type(L, index + 1) != LUA_TSTRING)
    luaL_argerror(L, index, "a function, or a module's and a function's name, expected");
  return false;
}

enum { START_STACK = 40 }; /* that process_new and the clone take, beside the arguments */

/* Makes a process of this isolate, and pushes its globals.  The stack gets its room first, because an error
 * after isolate_take_number loses the number. */
static struct process *make_process(lua_State *L, struct process *p, int nargs,
                                    enum process_priority priority) {
  struct isolate *iso = p->isolate;
  luaL_checkstack(L, nargs + START_STACK, "too many arguments");
  uint64_t number = isolate_take_number(iso);
  if (!number) bind_raise(L, ERR_BUSY, LIMIT_PROCESSES);
  struct process *q = process_new(L, iso, number, p->leader);
  if (!q) {
    isolate_give_number(iso, number);
    luaL_error(L, "out of memory");
    __builtin_unreachable();
  }
  atomic_fetch_add(&iso->live, 1);
  if (priority != PRIORITY_NORMAL) process_set_priority(q, priority);
  return q;
}

/* The function at the top and the arguments go straight to the coroutine of the new process. */
static void start(lua_State *L, struct process *q, int first, int last) {
  int n = last - first + 1;
  for (int i = first; i <= last; i++) lua_pushvalue(L, i);
  if (lua_checkstack(q->L, n + 1)) {
    lua_xmove(L, q->L, n + 1);
    q->nargs = n;
    process_begin(q);
  } else {
    process_doom(q, NULL);
  }
}

/* Starts the clone at the top of the stack (above the globals of p, as fn_clone has left them). */
static struct process *start_clone(lua_State *L, struct process *p, struct factory *f, int first, int last,
                                   enum process_priority priority) {
  int clone = lua_gettop(L);
  struct process *q = make_process(L, p, last - first + 1, priority);
  facts_set_label(q, factory_label(L, p->isolate, f, clone));
  fn_set_globals(L, clone, clone - 1, clone + 1);
  lua_pushvalue(L, clone);
  start(L, q, first, last);
  return q;
}

/* Starts a copy of the graph, whose objects are at the top.  The copy is the new process's own, which pays
 * for its memory; when that cannot be had, it ends, and the error goes on. */
static struct process *start_graph(lua_State *L, struct process *p, struct fn_graph *g, int first, int last,
                                   enum process_priority priority) {
  struct heap *h = &p->isolate->heap;
  struct process *q = make_process(L, p, last - first + 1, priority);
  lua_pushcfunction(L, fn_graph_copy);
  lua_insert(L, g->first);
  lua_pushlightuserdata(L, g);
  heap_enter(h, HEAP_SLOT + q->slot);
  int status = lua_pcall(L, g->objects + 2, 1, 0);
  heap_enter(h, HEAP_SLOT + p->slot);
  if (status != LUA_OK) {
    process_doom(q, NULL);
    lua_error(L);
  }
  facts_set_label(q, factory_label(L, p->isolate, g->object[0].factory, lua_gettop(L)));
  start(L, q, first, last);
  return q;
}

/* Starts a copy of the function at index `first`, of which the arguments follow up to `last`, in this
 * isolate; NULL: it is to be spawned by an order. */
static struct process *start_here(lua_State *L, struct process *p, int first, int last,
                                  enum process_priority priority) {
  struct fn_graph g;
  if (!placement_is_home(p) || !copy_all_scalar(L, first + 1, last)) return NULL;
  struct factory *f = fn_clone(L, first);
  if (f) return start_clone(L, p, f, first + 1, last, priority);
  return fn_graph_scan(L, first, &g) ? start_graph(L, p, &g, first + 1, last, priority) : NULL;
}

/* Makes the parent's side of the ties, and returns the results of the spawn. */
static int end_spawn(lua_State *L, npid pid, struct bind_child how) {
  struct process *p = process_of(L);
  p->spawned = true;
  int rc = how.link ? process_link(p, pid, 0) : 0;
  if (rc == 0 && how.monitor != NPID_NONE) rc = process_monitor(p, how.monitor, pid, 0);
  if (rc) return bind_raise(L, rc, LIMIT_TIES);
  luaL_checkstack(L, 2, NULL);
  copy_push_npid(L, pid);
  if (how.monitor == NPID_NONE) return 1;
  copy_push_npid(L, how.monitor);
  return 2;
}

/* --- by an order ---
 *
 * While it is made the process may give way, so what it is made of is on the stack: from the place that is
 * the context on, these values, the function or the two names, and the arguments. */
enum { HOW_LINK, HOW_MONITOR, HOW_PRIORITY, HOW };

static void insert_how(lua_State *L, int at, struct bind_child how) {
  luaL_checkstack(L, HOW, NULL);
  lua_pushboolean(L, how.link);
  lua_insert(L, at + HOW_LINK);
  copy_push_npid(L, how.monitor);
  lua_insert(L, at + HOW_MONITOR);
  lua_pushinteger(L, how.priority);
  lua_insert(L, at + HOW_PRIORITY);
}

static struct bind_child how_at(lua_State *L, int at) {
  return (struct bind_child){.link = lua_toboolean(L, at + HOW_LINK),
                             .monitor = copy_to_npid(L, at + HOW_MONITOR),
                             .priority = (enum process_priority)lua_tointeger(L, at + HOW_PRIORITY)};
}

static void put_how(const struct copy *c, int at) {
  struct bind_child how = how_at(c->L, at);
  term_put_pid(c->w, process_of(c->L)->leader);
  term_put_int(c->w, spawn_flags(how.link, how.priority));
  term_put_pid(c->w, how.monitor); /* nil, if there is none */
}

static uint32_t put_order(const struct copy *c, lua_KContext at) {
  put_how(c, (int)at);
  term_put_nil(c->w), term_put_nil(c->w);
  return 5;
}

static uint32_t put_named_order(const struct copy *c, lua_KContext at) {
  put_how(c, (int)at);
  copy_out(c, "module", (int)at + HOW, (int)at + HOW + 1);
  return 5;
}

static int send_order(lua_State *L, struct term *order, lua_KContext at) {
  struct process *p = process_of(L);
  struct bind_child how = how_at(L, (int)at);
  struct isolate *to = placement_is_home(p) ? p->isolate : placement_elsewhere(p);
  npid pid = NPID_NONE;
  int rc = ERR_NOMEM;
  if (to)
    rc = spawn_send(p, to, order, &pid);
  else
    term_unref(order);
  if (rc) return bind_raise(L, rc, LIMIT_PROCESSES);
  return end_spawn(L, pid, how);
}

static int spawn_by_order(lua_State *L, int first, struct bind_child how) {
  static const struct copy_form function = {.head = put_order, .code = 1, .what = "argument"},
                                named = {.head = put_named_order, .what = "argument"};
  bool is_function = lua_isfunction(L, first);
  insert_how(L, first, how);
  return copy_form_then(L, first + HOW + (is_function ? 0 : 2), is_function ? &function : &named, send_order,
                        first);
}

int bind_spawn(lua_State *L, int first, struct bind_child how) {
  struct process *p = process_of(L);
  int last = lua_gettop(L), ties = how.link + (how.monitor != NPID_NONE);
  if (p->isolate->scarce && budget_denies_spawn(p)) luaL_error(L, "%s", BUDGET_TEXT);
  if (ties && !process_may_tie(p, ties)) bind_raise(L, ERR_BUSY, LIMIT_TIES);
  struct process *q = bind_is_function(L, first) ? start_here(L, p, first, last, how.priority) : NULL;
  if (!q) return spawn_by_order(L, first, how);
  const struct spawn_order o = {.link = how.link ? p->pid : NPID_NONE, .watcher = p->pid, .ref = how.monitor};
  if (ties && spawn_tie(q, &o)) process_doom(q, NULL);
  return end_spawn(L, q->pid, how);
}
