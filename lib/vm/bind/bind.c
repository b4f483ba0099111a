/* Helpers that several bindings use.  A binding that may wait yields as its last act, and goes on in a
 * continuation. */
#include "vm/bind/bind.h"

#include "base/clock.h"
#include "vm/copy/copy.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/process/ties.h"
#include "vm/stdlib/inspect.h"

#include <math.h>

npid bind_to_pid(lua_State *L, int index) {
  npid p = copy_to_npid(L, index);
  return p != NPID_NONE && npid_is_ref(p) ? NPID_NONE : p;
}

npid bind_check_pid(lua_State *L, int arg) {
  npid p = bind_to_pid(L, arg);
  if (p == NPID_NONE) luaL_typeerror(L, arg, "pid");
  return p;
}

npid bind_check_ref(lua_State *L, int arg) {
  npid p = copy_to_npid(L, arg);
  if (p == NPID_NONE || !npid_is_ref(p)) luaL_typeerror(L, arg, "reference");
  return p;
}

npid bind_whereis(lua_State *L, struct names *table, int index) {
  size_t len;
  const char *name = lua_tolstring(L, index, &len);
  return whereis_pid(&process_of(L)->isolate->names, table, name, len);
}

npid bind_new_ref(struct process *p) {
  npid ref = isolate_ref(p->isolate);
  mailbox_note_ref(&p->mailbox, ref);
  return ref;
}

int64_t bind_check_deadline(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return TIMER_NEVER;
  lua_Number ms = luaL_checknumber(L, arg);
  if (!(ms >= 0)) luaL_argerror(L, arg, "milliseconds expected, 0 or more");
  if (ms >= 1e15) return TIMER_NEVER; /* thirty thousand years */
  double ns = ms * 1e6;
  int64_t now = clock_ns();
  return ns >= (double)(TIMER_NEVER - 1 - now) ? TIMER_NEVER : now + (int64_t)ns;
}

static void put_pid(lua_State *L, int index, struct buf *out) {
  char text[NPID_TEXT_SIZE];
  buf_puts(out, npid_format(isolate_of(L)->config->nodes, copy_to_npid(L, index), NPID_SHORT, text));
}

void bind_inspect(lua_State *L, int index) {
  inspect_push(L, index, put_pid);
}

const char *bind_text(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TSTRING) return lua_tostring(L, index);
  bind_inspect(L, index);
  return lua_tostring(L, -1);
}

void bind_check_suspends(lua_State *L, const char *what) {
  if (!lua_isyieldable(L)) luaL_error(L, "%s cannot wait here: a callback of a C function runs", what);
}

void bind_check_memory(lua_State *L) {
  struct heap *h = &process_of(L)->isolate->heap;
  if (!heap_is_over(h, false)) return;
  lua_gc(L, LUA_GCCOLLECT);
  if (!heap_is_over(h, true)) return;
  h->exceeded = true;
  luaL_error(L, "not enough memory");
}

int bind_raise(lua_State *L, int code, enum limit i) {
  char text[LIMIT_TEXT_SIZE];
  if (code != ERR_BUSY) return luaL_error(L, "out of memory");
  return luaL_error(L, "%s", limit_text(process_of(L)->isolate->config->limits, i, text));
}

unsigned bind_now(lua_State *L) {
  return sched_ticks(process_of(L)->isolate->runnable.scheduler);
}

bool bind_gives_way(lua_State *L, unsigned since) {
  return bind_now(L) != since && lua_isyieldable(L);
}

void bind_signal(lua_State *L, enum signal_kind kind, npid to, npid ref, struct term *term) {
  struct process *p = process_of(L);
  struct signal *s = signal_new(kind, to, p->pid, ref, term);
  if (!s) {
    term_unref(term);
    luaL_error(L, "out of memory");
    return;
  }
  isolate_deliver(p->isolate, s);
}

void bind_monitor(lua_State *L, npid ref, npid other, const char *gone, bool alias) {
  struct process *p = process_of(L), *near = isolate_find(p->isolate, other);
  bool nobody = other == NPID_NONE;
  uint32_t epoch = nobody || near ? 0 : isolate_epoch(p->isolate, other);
  bool room = nobody || process_may_tie_to(p, other);
  int rc = room ? process_monitor(p, ref, nobody ? NPID_KERNEL : other, epoch) : ERR_BUSY;
  if (rc) bind_raise(L, rc, LIMIT_TIES);
  if (alias && process_alias(p, ref)) {
    process_demonitor(p, ref);
    luaL_error(L, "out of memory");
  }
  bind_check_memory(L);
  if (near && !near->preemptible.end && !process_watch(near, ref, p->pid)) return; /* saves the signal */
  if (nobody) {
    isolate_signal(p->isolate, SIGNAL_DOWN, p->pid, NPID_NONE, ref, term_build("s", gone));
  } else if (isolate_tie(p->isolate, SIGNAL_MONITOR, other, p->pid, ref, epoch)) {
    process_demonitor(p, ref);
    luaL_error(L, "out of memory");
  }
}

/* The wait begins before the call is delivered, as a receiver in the same isolate replies during the
 * delivery. */
int bind_call(lua_State *L, npid to, struct term *term, lua_KFunction then, lua_KContext context) {
  struct process *p = process_of(L);
  if (!lua_isyieldable(L)) {
    term_unref(term);
    bind_check_suspends(L, "this");
  }
  if (!term) return luaL_error(L, "out of memory");
  npid ref = isolate_ref(p->isolate);
  p->call = ref;
  p->callee = to;
  p->child = NPID_NONE;
  term_unref(p->reply);
  p->reply = NULL;
  p->call_epoch = isolate_epoch(p->isolate, to);
  process_wait(p, PROCESS_CALLS, TIMER_NEVER);
  struct signal *s = signal_new(SIGNAL_CALL, to, p->pid, ref, term);
  if (!s) {
    term_unref(term);
    p->call = NPID_NONE;
    p->state = PROCESS_RUNNING;
    return luaL_error(L, "out of memory");
  }
  s->epoch = p->call_epoch;
  isolate_deliver(p->isolate, s);
  return lua_yieldk(L, 0, context, then);
}

int bind_reply(lua_State *L, bool *ok) {
  struct process *p = process_of(L);
  preempt_check(L);
  struct term_reader r = term_read(p->reply);
  *ok = term_next(&r).tag == TERM_TRUE;
  int n = copy_in_all(L, &r);
  term_unref(p->reply);
  p->reply = NULL;
  if (*ok) return n;
  if (n >= 2) {
    lua_pop(L, n - 2);
    return 2;
  }
  lua_pop(L, n);
  lua_pushliteral(L, "system");
  lua_pushliteral(L, "the call failed");
  return 2;
}

int bind_take_reply(lua_State *L) {
  bool ok;
  int n = bind_reply(L, &ok);
  return ok ? n : luaL_error(L, "%s", lua_tostring(L, -1));
}

int bind_results(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return bind_take_reply(L);
}

void bind_put_pid(struct term_writer *w, const char *key, npid pid) {
  term_put_text(w, key);
  term_put_pid(w, pid);
}

void bind_put_monitor(struct term_writer *w, npid self, npid ref) {
  term_put_text(w, "monitor");
  size_t at = term_open(w, TERM_LIST);
  term_put_pid(w, self);
  term_put_pid(w, ref);
  term_set_count(w, at, 2);
}
