/* send_all: one message to many receivers, which share one term.
 *
 * Invariant: before anything is delivered, the values have become a term and every receiver was looked at, so
 * the errors of bad arguments come first.  While the process waits for room, or gives way, p->reply keeps the
 * term: no call of the process is under way, so it is free for that, and is dropped if the process ends.
 *
 * Orderings: as for send, each receiver gets the message after what the process sent to it before.  Nothing
 * is said between two receivers. */
#include "vm/bind/bind.h"

#include "vm/copy/copy.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/sched/room.h"

enum {
  STRIDE = 64,    /* receivers between two looks at the clock */
  RUN_MAX = 1000, /* receivers of another node in one frame */
  /* What the call around the message may add to it: a message that leaves less room goes to each receiver by
   * itself. */
  RUN_ROOM = 64 + RUN_MAX * 9
};

/* The stack holds the list of receivers; the context of both phases is the place in it. */
static int check(lua_State *L, int status, lua_KContext at);
static int deliver(lua_State *L, int status, lua_KContext at);

static npid receiver(lua_State *L, lua_Integer i) {
  lua_rawgeti(L, 1, i);
  npid to = copy_to_npid(L, -1);
  lua_pop(L, 1);
  return to;
}

static bool is_due(lua_State *L, lua_Integer i, unsigned since) {
  return i % STRIDE == 0 && bind_gives_way(L, since);
}

static void drop_term(struct process *p) {
  term_unref(p->reply);
  p->reply = NULL;
}

static int check(lua_State *L, int status, lua_KContext at) {
  (void)status;
  struct process *p = process_of(L);
  unsigned since = bind_now(L);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  for (lua_Integer i = at; i <= n; i++) {
    if (receiver(L, i) == NPID_NONE) {
      drop_term(p);
      return luaL_error(L, "bad argument #1 to 'send_all' (receiver %d is no pid or alias)", (int)i);
    }
    if (is_due(L, i, since)) return lua_yieldk(L, 0, i + 1, check);
  }
  return deliver(L, LUA_OK, 1);
}

/* How many receivers from i on are processes of the same other node, and have room?  At least 1, for i. */
static lua_Integer run_length(lua_State *L, lua_Integer i, lua_Integer n) {
  struct vm *vm = process_of(L)->isolate->vm;
  npid first = receiver(L, i);
  lua_Integer last = i;
  bool fits = process_of(L)->reply->size <= TERM_SIZE_MAX - RUN_ROOM;
  if (!fits || npid_is_local(first) || npid_is_ref(first)) return 1;
  while (last < n && last - i + 1 < RUN_MAX) {
    npid next = receiver(L, last + 1);
    if (npid_is_ref(next) || npid_incarnation(next) != npid_incarnation(first)) break;
    if (vm_lack(vm, next) != NPID_NONE) break;
    last++;
  }
  return last - i + 1;
}

/* The call of a kernel that passes the message on to `count` processes of its node, without a reply. */
static struct term *call_for(lua_State *L, lua_Integer i, lua_Integer count) {
  const struct term *t = process_of(L)->reply;
  struct copy c = copy_begin(L);
  term_put_text(c.w, "send_all");
  size_t pids = term_open(c.w, TERM_LIST);
  for (lua_Integer k = i; k < i + count; k++) term_put_pid(c.w, receiver(L, k));
  term_set_count(c.w, pids, (uint32_t)count);
  size_t values = term_open(c.w, TERM_LIST);
  term_put_raw(c.w, t->bytes, t->size);
  term_set_count(c.w, values, t->count);
  return copy_end(&c, 3);
}

/* Sends the message to the receivers from i on, `count` of them.  True: the process waits. */
static bool send_to(lua_State *L, lua_Integer i, lua_Integer count) {
  npid to = receiver(L, i), kernel = npid_kernel_of(to);
  if (count > 1) return bind_deliver(L, SIGNAL_CALL, kernel, NPID_NONE, call_for(L, i, count));
  struct term *t = term_ref(process_of(L)->reply);
  if (npid_is_ref(to) && !npid_is_local(to)) return bind_deliver(L, SIGNAL_MESSAGE, kernel, to, t);
  return bind_deliver(L, SIGNAL_MESSAGE, to, NPID_NONE, t);
}

static int deliver(lua_State *L, int status, lua_KContext at) {
  (void)status;
  struct process *p = process_of(L);
  unsigned since = bind_now(L);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1), count;
  vm_leave_room(p->isolate->vm, &p->room);
  preempt_check(L);
  for (lua_Integer i = at; i <= n; i += count) {
    npid to = receiver(L, i);
    if (bind_awaits_room(L, p, isolate_find(p->isolate, to), to)) {
      process_wait(p, PROCESS_SENDS, TIMER_NEVER);
      return lua_yieldk(L, 0, i, deliver);
    }
    count = run_length(L, i, n);
    if (send_to(L, i, count) || ((count > 1 || i % STRIDE == 0) && bind_gives_way(L, since)))
      return lua_yieldk(L, 0, i + count, deliver);
  }
  drop_term(p);
  return 0;
}

static int begin(lua_State *L, struct term *t, lua_KContext context) {
  (void)context;
  struct process *p = process_of(L);
  term_unref(p->reply);
  p->reply = t;
  lua_settop(L, 1);
  return check(L, LUA_OK, 1);
}

int bind_send_all(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_rawlen(L, 1) == 0 && (lua_pushnil(L), lua_next(L, 1)))
    return luaL_argerror(L, 1, "a list of pids expected");
  return copy_term_then(L, "message", 2, begin, 0);
}
