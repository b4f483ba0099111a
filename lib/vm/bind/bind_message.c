/* Messages: send, receive, receive_match, timers.
 *
 * While a receive_match searches, p->mailbox.mark is the link to the next message it looks at; nothing is
 * taken from the mailbox meanwhile, so the link stays valid. */
#include "vm/bind/bind.h"

#include "base/clock.h"
#include "vm/copy/copy.h"
#include "vm/lua/yield.h"
#include "vm/process/alarm.h"
#include "vm/process/budget.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/process/signals.h"
#include "vm/process/ties.h"
#include "vm/sched/room.h"

#include <math.h>
#include <string.h>

/* --- send --- */

/* Moves a message of scalars from this stack straight to the stack of a process of the same isolate that
 * waits in receive; false when that is not possible.  Such a message needs no term. */
static bool hand_over(lua_State *L, struct process *to, int first, int last) {
  int n = last - first + 1;
  if (to->state != PROCESS_RECEIVES || to->mailbox.first || to->preemptible.end ||
      !copy_all_scalar(L, first, last))
    return false;
  if (!lua_checkstack(to->L, n + 1)) return false;
  lua_xmove(L, to->L, n);
  to->nargs = n;
  to->direct = true;
  struct isolate *iso = to->isolate;
  atomic_store_explicit(&iso->messages, iso->messages + 1, memory_order_relaxed);
  process_ready(to);
  return true;
}

/* A reference of another node is reached by the kernel of that node. */
bool bind_awaits_room(lua_State *L, struct process *p, const struct process *near, npid to) {
  struct vm *vm = p->isolate->vm;
  if (p->isolate->scarce && budget_denies_send(p)) luaL_error(L, "%s", BUDGET_TEXT);
  if (npid_is_ref(to) && !npid_is_local(to)) to = npid_kernel_of(to);
  if (near ? !near->full : vm_lack(vm, to) == NPID_NONE) return false;
  if (to == p->pid) luaL_error(L, "the mailbox of this process is full");
  bind_check_suspends(L, "send");
  int rc = vm_await_room(vm, to, p->pid, &p->room);
  if (rc == ERR_NOMEM) luaL_error(L, "out of memory");
  return rc;
}

static int sent(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  struct process *p = process_of(L);
  vm_leave_room(p->isolate->vm, &p->room);
  preempt_check(L);
  return 0;
}

/* A process that cannot be suspended here goes on, and so does one that has no memory to wait. */
bool bind_deliver(lua_State *L, enum signal_kind kind, npid to, npid ref, struct term *term) {
  struct process *p = process_of(L);
  bool waits = term->size > SIGNAL_LONG && !npid_is_local(to) && lua_isyieldable(L);
  if (waits) vm_sending(p->isolate->vm, p->pid);
  bind_signal(L, kind, to, ref, term);
  if (!waits || vm_await_sent(p->isolate->vm, p->pid, &p->room) != ERR_BUSY) return false;
  process_wait(p, PROCESS_SENDS, TIMER_NEVER);
  return true;
}

int bind_message_to(lua_State *L, enum signal_kind kind, npid to, npid ref, struct term *term) {
  return bind_deliver(L, kind, to, ref, term) ? lua_yieldk(L, 0, 0, sent) : 0;
}

static int send_again(lua_State *L, int status, lua_KContext to);

static int send_term(lua_State *L, struct term *t, lua_KContext to) {
  return bind_message_to(L, SIGNAL_MESSAGE, (npid)to, NPID_NONE, t);
}

static int send_urgent_term(lua_State *L, struct term *t, lua_KContext to) {
  return bind_message_to(L, SIGNAL_URGENT, (npid)to, NPID_NONE, t);
}

/* To an alias of another node. */
static int send_term_there(lua_State *L, struct term *t, lua_KContext to) {
  return bind_message_to(L, SIGNAL_MESSAGE, npid_kernel_of((npid)to), (npid)to, t);
}

/* Sends the values from index 2 on to an alias (ties.h), a reference of this node or another.  The kernel of
 * another node gets the message with the reference, and passes it on.  An alias takes one message, so nobody
 * waits for room in the mailbox. */
static int send_to_alias(lua_State *L, npid to) {
  struct isolate *iso = process_of(L)->isolate;
  struct process *near = process_of_alias(iso, to);
  int last = lua_gettop(L);
  if (near && copy_all_scalar(L, 2, last) && !near->preemptible.end) {
    process_take_alias(iso, to);
    if (hand_over(L, near, 2, last)) return 0;
    to = near->pid;
  }
  bool there = npid_is_ref(to) && !npid_is_local(to);
  return copy_term_then(L, "message", 2, there ? send_term_there : send_term, (lua_KContext)to);
}

/* Sends the values from index 2 on to a pid or an alias. */
static int send_values(lua_State *L, npid to) {
  struct process *p = process_of(L), *near = isolate_find(p->isolate, to);
  int last = lua_gettop(L);
  if (bind_awaits_room(L, p, near, to)) {
    process_wait(p, PROCESS_SENDS, TIMER_NEVER);
    return lua_yieldk(L, 0, (lua_KContext)to, send_again);
  }
  if (npid_is_ref(to)) return send_to_alias(L, to);
  if (near && hand_over(L, near, 2, last)) return 0;
  return copy_term_then(L, "message", 2, send_term, (lua_KContext)to);
}

/* --- send_urgent: the receiver is looked up once --- */

static int urgent_again(lua_State *L, int status, lua_KContext to);

static int send_urgent_to(lua_State *L, npid to) {
  struct process *p = process_of(L);
  if (bind_awaits_room(L, p, isolate_find(p->isolate, to), to)) {
    process_wait(p, PROCESS_SENDS, TIMER_NEVER);
    return lua_yieldk(L, 0, (lua_KContext)to, urgent_again);
  }
  return copy_term_then(L, "message", 2, send_urgent_term, (lua_KContext)to);
}

static int urgent_again(lua_State *L, int status, lua_KContext to) {
  (void)status;
  vm_leave_room(process_of(L)->isolate->vm, &process_of(L)->room);
  preempt_check(L);
  return send_urgent_to(L, (npid)to);
}

static int send_urgent(lua_State *L) {
  npid to = bind_to_pid(L, 1);
  if (to == NPID_NONE && lua_type(L, 1) == LUA_TSTRING) {
    to = bind_whereis(L, process_of(L)->isolate->config->names, 1);
    if (to == NPID_NONE) return luaL_error(L, "no process has the name '%s'", lua_tostring(L, 1));
  }
  if (to == NPID_NONE) return luaL_argerror(L, 1, "a pid or a name of this node expected");
  return send_urgent_to(L, to);
}

static int send_again(lua_State *L, int status, lua_KContext to) {
  (void)status;
  struct process *p = process_of(L);
  vm_leave_room(p->isolate->vm, &p->room);
  preempt_check(L);
  return send_values(L, (npid)to);
}

/* Flow control of messages to names on other nodes: after this many bytes, the sender makes a call, and waits
 * for its reply, which comes when there is room for more. */
enum { NAMED_WINDOW = 256 << 10 };

static int named_answered(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  bind_reply(L, &ok); /* when the node is lost, the message is lost, too, and the sender gets no error */
  return 0;
}

static int send_named(lua_State *L, struct term *term, lua_KContext context) {
  struct process *p = process_of(L);
  npid kernel = (npid)context;
  p->named += (uint32_t)(sizeof(struct signal) + term->size);
  if (p->named >= NAMED_WINDOW) {
    p->named = 0;
    return bind_call(L, kernel, term, named_answered, 0);
  }
  return bind_message_to(L, SIGNAL_CALL, kernel, NPID_NONE, term);
}

static uint32_t put_name(const struct copy *c, lua_KContext context) {
  (void)context;
  term_put_text(c->w, "send");
  term_put_text(c->w, lua_tostring(c->L, 1));
  return 3;
}

/* Sends to the name at index 1 on another node.  Runs when the reply with the pid of that node's kernel has
 * come; that kernel delivers the message to the name. */
static int send_there(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  int n = bind_reply(L, &ok);
  npid kernel = ok && n > 0 ? bind_to_pid(L, -n) : NPID_NONE;
  lua_pop(L, n);
  if (kernel == NPID_NONE) return 0; /* as a message to a dead pid, the message is dropped without an error */
  static const struct copy_form form = {.head = put_name, .list = true, .what = "message"};
  return copy_form_then(L, 2, &form, send_named, (lua_KContext)kernel);
}

/* {name, node} is data: it is read without metamethods. */
static int send_to_node(lua_State *L) {
  lua_rawgeti(L, 1, 1);
  lua_rawgeti(L, 1, 2);
  if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
    return luaL_argerror(L, 1, "a pid, a name, {name, node}, or an alias expected");
  const char *node = lua_tostring(L, -1);
  const struct vm_config *config = process_of(L)->isolate->config;
  bool here = nodename_means(node, nodetab_name(config->nodes, 0));
  npid to = here ? bind_whereis(L, config->names, -2) : NPID_NONE;
  struct term *ask = here ? NULL : term_build("ss", "connect", node);
  lua_pop(L, 1);
  lua_replace(L, 1); /* the name takes the place of the pair */
  if (!here) return bind_call(L, NPID_KERNEL, ask, send_there, 0);
  return to == NPID_NONE ? 0 : send_values(L, to);
}

int bind_send(lua_State *L) {
  npid to = copy_to_npid(L, 1);
  if (to == NPID_NONE && lua_type(L, 1) == LUA_TTABLE) return send_to_node(L);
  if (to == NPID_NONE && lua_type(L, 1) == LUA_TSTRING) {
    to = bind_whereis(L, process_of(L)->isolate->config->names, 1);
    if (to == NPID_NONE) return luaL_error(L, "no process has the name '%s'", lua_tostring(L, 1));
  }
  if (to == NPID_NONE) return luaL_argerror(L, 1, "a pid, a name, {name, node}, or an alias expected");
  return send_values(L, to);
}

/* --- receive --- */

static int receive_match(lua_State *L);

void bind_check_takes(lua_State *L) {
  struct mailbox *m = &process_of(L)->mailbox;
  lua_Debug ar;
  for (int level = 1; m->matching && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "f", &ar);
    if (lua_tocfunction(L, -1) == receive_match)
      luaL_error(L, "the predicate of a receive_match cannot take messages");
    lua_pop(L, 1);
  }
  m->matching = false; /* a receive_match whose predicate raised an error has left it set */
}

static int take(lua_State *L, struct process *p, struct signal **link) {
  process_take(p, link);
  return copy_taken(L);
}

/* Returns the message after a wait, or nil.  top: the height of the stack when the wait began; a message that
 * was handed over lies above it. */
static int received(lua_State *L, int status, lua_KContext top) {
  (void)status;
  struct process *p = process_of(L);
  if (p->direct) {
    p->direct = false;
    return lua_gettop(L) - (int)top;
  }
  preempt_check(L);
  if (p->mailbox.first) return take(L, p, &p->mailbox.first);
  lua_pushnil(L);
  return 1;
}

static int receive(lua_State *L) {
  struct process *p = process_of(L);
  if (p->mailbox.matching) bind_check_takes(L);
  if (p->mailbox.first) return take(L, p, &p->mailbox.first);
  if (lua_isinteger(L, 1) && lua_tointeger(L, 1) == 0) {
    lua_pushnil(L);
    return 1;
  }
  int top = lua_gettop(L);
  int64_t deadline = top > 0 ? bind_check_deadline(L, 1) : TIMER_NEVER;
  bind_check_suspends(L, "receive");
  process_wait(p, PROCESS_RECEIVES, deadline);
  return lua_yieldk(L, 0, top, received);
}

/* --- receive_match: the stack holds the pattern and the deadline --- */

static bool fits_one(lua_State *L, struct term_reader *r) {
  struct term_reader peek = *r;
  struct term_value v = term_next(&peek);
  size_t n;
  if (v.tag == TERM_STR) {
    const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    *r = peek;
    return s && n == v.len && memcmp(s, v.s, n) == 0;
  }
  if (v.tag == TERM_LIST || v.tag == TERM_MAP || v.tag == TERM_TABLE || v.tag == TERM_FN || v.tag == TERM_END)
    return false;
  copy_in(L, r);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  return same;
}

static bool fits(lua_State *L, const struct term *message) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  struct term_reader r = term_read(message);
  bool same = true;
  for (lua_Integer i = 1; i <= n && same; i++) {
    lua_rawgeti(L, 1, i);
    same = fits_one(L, &r);
    lua_pop(L, 1);
  }
  return same;
}

/* A list of leading values in the form in which messages have them, so that most messages are judged by their
 * first bytes.  Only numbers have several forms (1 and 1.0 are equal). */
struct leading {
  const uint8_t *bytes; /* in the isolate's writer: valid until the next encoding */
  size_t all, certain;  /* bytes of all values, and of those before the first number */
  bool never;           /* a value is such that no message can match */
  bool ref;             /* the pattern is a reference, not a list */
};

static inline bool begins(const struct term *t, const uint8_t *bytes, size_t n) {
  return n == 0 || (t && t->size >= n && memcmp(t->bytes, bytes, n) == 0);
}

/* Does the message have the reference as its first or second value? */
static bool has_ref(const struct leading *l, const struct term *message) {
  if (begins(message, l->bytes, l->all)) return true;
  struct term_reader r = term_read(message);
  if (!message || message->count < 2) return false;
  term_skip(&r);
  return (size_t)(r.end - r.at) >= l->all && memcmp(r.at, l->bytes, l->all) == 0;
}

/* Writes the value at the top; false when no message has an equal one. */
static bool put_leading(lua_State *L, struct term_writer *w) {
  size_t n;
  switch (lua_type(L, -1)) {
  case LUA_TNIL: term_put_nil(w); return true;
  case LUA_TBOOLEAN: term_put_bool(w, lua_toboolean(L, -1)); return true;
  case LUA_TNUMBER:
    if (lua_isinteger(L, -1))
      term_put_int(w, lua_tointeger(L, -1));
    else
      term_put_float(w, lua_tonumber(L, -1));
    return true;
  case LUA_TSTRING: {
    const char *s = lua_tolstring(L, -1, &n);
    term_put_str(w, s, n);
    return true;
  }
  case LUA_TLIGHTUSERDATA: term_put_pid(w, copy_to_npid(L, -1)); return true;
  default: return false;
  }
}

static struct leading encode_leading(lua_State *L) {
  struct copy c = copy_begin(L);
  struct leading out = {.ref = !lua_istable(L, 1)};
  lua_Integer n = out.ref ? 0 : (lua_Integer)lua_rawlen(L, 1);
  bool numbers = false;
  if (out.ref) term_put_pid(c.w, copy_to_npid(L, 1));
  for (lua_Integer i = 1; i <= n && !out.never; i++) {
    numbers |= lua_rawgeti(L, 1, i) == LUA_TNUMBER;
    out.never = !put_leading(L, c.w);
    lua_pop(L, 1);
    if (!numbers) out.certain = c.w->len;
  }
  if (c.w->failed) luaL_error(L, "out of memory");
  out.bytes = c.w->data;
  out.all = c.w->len;
  return out;
}

static bool matches(lua_State *L, const struct leading *l, const struct term *message) {
  if (l->ref) return has_ref(l, message);
  if (!begins(message, l->bytes, l->certain)) return false;
  return l->certain == l->all || begins(message, l->bytes, l->all) || fits(L, message);
}

static int match_on(lua_State *L, int status, lua_KContext stage);
static int match_woken(lua_State *L, int status, lua_KContext context);

static int match_take(lua_State *L, struct process *p, struct signal **link) {
  p->mailbox.matching = false;
  return take(L, p, link);
}

static int match_wait(lua_State *L, struct process *p) {
  int64_t deadline = lua_tointeger(L, 2);
  if (deadline != TIMER_NEVER && clock_ns() >= deadline) {
    p->mailbox.matching = false;
    lua_pushnil(L);
    return 1;
  }
  bind_check_suspends(L, "receive_match");
  process_wait(p, PROCESS_MATCHES, deadline);
  return lua_yieldk(L, 0, 0, match_woken);
}

/* Searches from the mark on for a message that begins with the values of the pattern. */
static int match_values(lua_State *L) {
  enum { STRIDE = 64 };
  struct process *p = process_of(L);
  struct mailbox *m = &p->mailbox;
  if (!*m->mark) return match_wait(L, p);
  struct leading l = encode_leading(L);
  unsigned since = bind_now(L);
  for (unsigned i = 1; *m->mark && !l.never; i++) {
    struct signal *s = *m->mark;
    if (s->next) __builtin_prefetch(s->next->term);
    if (matches(L, &l, s->term)) return match_take(L, p, m->mark);
    m->mark = &s->next;
    if (i % STRIDE == 0 && bind_gives_way(L, since)) return lua_yieldk(L, 0, 0, match_woken);
  }
  if (l.never) m->mark = m->tail;
  return match_wait(L, p);
}

static int pushed(lua_State *L, int n, lua_KContext context) {
  (void)L, (void)context;
  return n;
}

/* Returns the values of the message at the mark. */
static int values_at_mark(lua_State *L) {
  struct term *t = (*process_of(L)->mailbox.mark)->term;
  return copy_in_then(L, t, term_read(t), t ? t->count : 0, pushed, 0);
}

/* What comes next for the message at the mark.  CALLED: the predicate, at 3, is to be called with the values
 * above it.  JUDGED: its result is at the top. */
enum match_stage { MATCH_BEGIN, MATCH_CALLED, MATCH_JUDGED };

/* Searches from the mark on. */
static int match(lua_State *L, enum match_stage stage) {
  struct process *p = process_of(L);
  struct mailbox *m = &p->mailbox;
  if (!lua_isfunction(L, 1)) return match_values(L);
  while (*m->mark) {
    if (stage == MATCH_BEGIN) {
      if (yield_due(L)) return lua_yieldk(L, 0, 0, match_woken);
      m->restarted = false;
      lua_pushvalue(L, 1);
      lua_pushcfunction(L, values_at_mark);
      lua_callk(L, 0, LUA_MULTRET, MATCH_CALLED, match_on);
    }
    if (stage != MATCH_JUDGED) lua_callk(L, lua_gettop(L) - 3, 1, MATCH_JUDGED, match_on);
    stage = MATCH_BEGIN;
    bool hit = lua_toboolean(L, -1);
    lua_settop(L, 2);
    if (m->restarted) continue; /* the mark is at another message than the one that was judged */
    if (hit) return match_take(L, p, m->mark);
    m->mark = &(*m->mark)->next;
  }
  return match_wait(L, p);
}

static int match_on(lua_State *L, int status, lua_KContext stage) {
  (void)status;
  return match(L, (enum match_stage)stage);
}

static int match_woken(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  preempt_check(L);
  return match(L, MATCH_BEGIN);
}

/* Is the reference among the leading values of the pattern? */
static bool pattern_has(lua_State *L, npid ref) {
  bool found = copy_to_npid(L, 1) == ref;
  lua_Integer n = lua_istable(L, 1) ? (lua_Integer)lua_rawlen(L, 1) : 0;
  for (lua_Integer i = 1; i <= n && !found; i++) {
    lua_rawgeti(L, 1, i);
    found = copy_to_npid(L, -1) == ref;
    lua_pop(L, 1);
  }
  return found;
}

/* As in Erlang, a pattern with the reference that was made last skips the messages that were there before. */
static struct signal **first_candidate(lua_State *L, struct mailbox *m) {
  bool skip = m->fresh != NPID_NONE && m->first && pattern_has(L, m->fresh);
  m->fresh = NPID_NONE;
  return skip ? m->mark : &m->first;
}

static int receive_match(lua_State *L) {
  npid ref = copy_to_npid(L, 1);
  if (!lua_istable(L, 1) && !lua_isfunction(L, 1) && (ref == NPID_NONE || !npid_is_ref(ref)))
    return luaL_argerror(L, 1, "a list of leading values, a reference, or a predicate, expected");
  int64_t deadline = bind_check_deadline(L, 2);
  bind_check_takes(L);
  lua_settop(L, 1);
  lua_pushinteger(L, deadline);
  struct mailbox *m = &process_of(L)->mailbox;
  m->mark = first_candidate(L, m);
  m->matching = true;
  return match(L, MATCH_BEGIN);
}

/* --- time --- */

static int slept(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  preempt_check(L);
  return 0;
}

static int sleep_ms(lua_State *L) {
  luaL_checknumber(L, 1); /* nil would mean for ever */
  bool yields = lua_isinteger(L, 1) && lua_tointeger(L, 1) == 0;
  int64_t deadline = bind_check_deadline(L, 1);
  bind_check_suspends(L, "sleep");
  if (yields) {
    process_of(L)->spawned = false; /* it goes on as if it had been preempted */
  } else {
    process_wait(process_of(L), PROCESS_SLEEPS, deadline);
  }
  return lua_yieldk(L, 0, 0, slept);
}

static int set_alarm(lua_State *L, struct term *term, lua_KContext at) {
  struct process *p = process_of(L);
  npid to = bind_to_pid(L, 2), ref = bind_new_ref(p);
  int rc = alarm_set(p->isolate, ref, at, p->pid, to, to == NPID_NONE ? lua_tostring(L, 2) : NULL, term);
  if (rc) {
    term_unref(term);
    return bind_raise(L, rc, LIMIT_TIMERS);
  }
  bind_check_memory(L);
  copy_push_npid(L, ref);
  return 1;
}

static int send_after(lua_State *L) {
  luaL_checknumber(L, 1);
  int64_t at = bind_check_deadline(L, 1);
  if (bind_to_pid(L, 2) == NPID_NONE && lua_type(L, 2) != LUA_TSTRING)
    return luaL_argerror(L, 2, "a pid or a name expected");
  return copy_term_then(L, "message", 3, set_alarm, at);
}

static int push_left(lua_State *L, int64_t left) {
  if (left < 0) {
    lua_pushboolean(L, 0);
  } else {
    lua_pushinteger(L, (left + 999999) / 1000000);
  }
  return 1;
}

static int cancelled(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  int n = bind_reply(L, &ok);
  return push_left(L, ok ? lua_tointeger(L, -n) : -1);
}

/* A timer belongs to the isolate in which it was set; another isolate cancels it by a call. */
static int cancel_timer(lua_State *L) {
  struct isolate *iso = process_of(L)->isolate;
  npid ref = bind_check_ref(L, 1);
  int64_t left = alarm_cancel(iso, ref);
  struct isolate *owner = left >= 0 ? iso : alarm_owner(iso->vm, ref);
  if (!owner || owner == iso) return push_left(L, left);
  return bind_call(L, ref, term_build("s", "cancel_timer"), cancelled, 0);
}

static int monotonic(lua_State *L) {
  lua_pushinteger(L, clock_ns());
  return 1;
}

const struct bind_function bind_message[] = {
    {"send", bind_send, "send(dest, ...)",
     "Sends a message, which consists of all the values after the destination."},
    {"send_all", bind_send_all, "send_all(pids, ...)",
     "Sends one message, which consists of all the values after the list, to each process of the list."},
    {"send_urgent", send_urgent, "send_urgent(dest, ...)",
     "Sends a message that overtakes all others that wait in the mailbox, except those sent so before."},
    {"receive", receive, "receive([ms])",
     "Takes the oldest message and returns its values, or returns nil when none has come in time."},
    {"receive_match", receive_match, "receive_match(pattern, [ms])",
     "Takes the oldest message that matches, and leaves all others in their order."},
    {"sleep", sleep_ms, "sleep(ms)",
     "Waits for the given milliseconds; with 0, until others that compute have had a turn."},
    {"send_after", send_after, "send_after(ms, dest, ...)",
     "Sends a message after the given milliseconds, and returns a reference at once."},
    {"cancel_timer", cancel_timer, "cancel_timer(ref)",
     "Cancels a message of send_after, and returns the milliseconds that were left, or false when it is too "
     "late."},
    {"monotonic", monotonic, "monotonic()",
     "Returns the time in nanoseconds by a clock that never goes back."},
    {NULL, NULL, NULL, NULL},
};
