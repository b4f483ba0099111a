/* Invariant: a process is in one of the two ready queues exactly while its state is READY; its timer is armed
 * only while it waits.  A process that must end is made ready, and ends when its turn comes instead of
 * running.  So a process is freed in one place only, between two resumes, never while its own code runs. */
#include "vm/process/process.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "core/output.h"
#include "vm/lua/hooks.h"
#include "vm/lua/trace.h"
#include "vm/process/budget.h"
#include "vm/process/facts.h"
#include "vm/process/parting.h"
#include "vm/process/spawn.h"
#include "vm/process/ties.h"
#include "vm/sched/preempt.h"
#include "vm/sched/room.h"
#include "vm/sched/state.h"

#include <stdlib.h>
#include <string.h>

/* --- the ready queue and waits --- */

static void prepend(struct queue *q, struct process *p) {
  p->state = PROCESS_READY;
  p->next = q->first;
  if (!q->last) q->last = p;
  q->first = p;
  q->len++;
}

static void append(struct queue *q, struct process *p) {
  p->state = PROCESS_READY;
  p->next = NULL;
  if (q->last) {
    q->last->next = p;
  } else {
    q->first = p;
  }
  q->last = p;
  q->len++;
}

void process_ready(struct process *p) {
  struct isolate *iso = p->isolate;
  if (p->state == PROCESS_READY || p->state == PROCESS_RUNNING) return;
  if (timer_armed(&p->timer)) timers_remove(&iso->timers, &p->timer);
  if (p->priority == PRIORITY_NORMAL) {
    append(&iso->ready, p);
  } else if (p->priority == PRIORITY_LOW) {
    append(&iso->low, p);
  } else {
    prepend(&iso->ready, p);
  }
}

/* Queues a process that has used up its slice, or given it up.  One of high priority stays before all that
 * compute. */
static void preempted(struct process *p) {
  struct isolate *iso = p->isolate;
  append(p->priority == PRIORITY_NORMAL ? &iso->preempted
         : p->priority == PRIORITY_LOW  ? &iso->low
                                        : &iso->ready,
         p);
}

void process_set_priority(struct process *p, enum process_priority priority) {
  p->priority = (uint8_t)priority;
  facts_priority(p);
}

enum { NEW_READY = 4 };

void process_begin(struct process *p) {
  if (p->isolate->ready.len >= NEW_READY && p->state == PROCESS_FREE) {
    preempted(p);
  } else {
    process_ready(p);
  }
}

void process_wait(struct process *p, enum process_state state, int64_t at) {
  p->state = (uint8_t)state;
  p->timed_out = false;
  p->spawned = false;
  if (at == TIMER_NEVER) return;
  p->timer.at = at;
  if (timers_add(&p->isolate->timers, &p->timer)) { /* no memory for the heap: the wait ends at once */
    p->timed_out = true;
    process_ready(p);
  }
}

/* --- birth --- */

static int64_t new_slot(struct isolate *iso) {
  if (iso->holes > 0) {
    while (iso->slots[iso->hole]) iso->hole++;
    return iso->hole;
  }
  if (iso->slots_len == iso->slots_cap) {
    uint32_t cap = iso->slots_cap ? 2 * iso->slots_cap : 16;
    struct process **slots = realloc(iso->slots, cap * sizeof(*slots));
    if (!slots) return -1;
    iso->slots = slots;
    iso->slots_cap = cap;
  }
  return iso->slots_len;
}

/* Makes p an unused process of the pool, which keeps its coroutine and its slot. */
static void blank(struct process *p, struct isolate *iso, lua_State *co, uint32_t slot) {
  *p = (struct process){.preemptible = {.runnable = &iso->runnable},
                        .L = co,
                        .slot = slot,
                        .call = NPID_NONE,
                        .callee_ref = NPID_NONE,
                        .child = NPID_NONE,
                        .next = iso->pool};
  mailbox_init(&p->mailbox);
}

/* Calls fn with data, which makes what slots keep for their next processes: that belongs to nobody, and not
 * to the process that runs.  False when memory ran out; else fn's result, if `result`, is pushed. */
static bool as_nobody(lua_State *L, struct isolate *iso, lua_CFunction fn, void *data, int result) {
  uint32_t owner = iso->heap.owner;
  if (!lua_checkstack(L, LUA_MINSTACK)) return false;
  heap_enter(&iso->heap, HEAP_NOBODY);
  lua_pushcfunction(L, fn);
  lua_pushlightuserdata(L, data);
  int status = lua_pcall(L, 1, result, 0);
  heap_enter(&iso->heap, owner);
  if (status != LUA_OK) lua_pop(L, 1);
  return status == LUA_OK;
}

/* Leaves a new table of globals at the top. */
static int new_env(lua_State *L) {
  const struct isolate *iso = lua_touserdata(L, 1);
  lua_newtable(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.env_meta);
  lua_setmetatable(L, -2);
  return 1;
}

/* Keeps the value at the top for the slot, and pops it. */
static void keep(lua_State *L, int table, uint32_t slot) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, table);
  lua_insert(L, -2);
  lua_rawseti(L, -2, (lua_Integer)slot + 1);
  lua_pop(L, 1);
}

/* Makes a slot with a coroutine, which stays anchored there and serves one process after the other, and with
 * a table of globals.  What can fail comes first: after an error the slot does not exist. */
static void make(lua_State *L, struct isolate *iso) {
  int64_t slot = new_slot(iso);
  if (slot < 0 || !heap_open_account(&iso->heap, (uint32_t)slot)) luaL_error(L, "out of memory");
  lua_State *co = lua_newthread(L);
  keep(L, iso->refs.threads, (uint32_t)slot);
  lua_pushcfunction(L, new_env);
  lua_pushlightuserdata(L, iso);
  lua_call(L, 1, 1);
  keep(L, iso->refs.envs, (uint32_t)slot);
  struct process *p = heap_alloc(&iso->heap, NULL, 0, sizeof *p);
  if (!p) {
    luaL_error(L, "out of memory");
    __builtin_unreachable();
  }
  blank(p, iso, co, (uint32_t)slot);
  lua_sethook(co, NULL, 0, 0);
  *(struct process **)lua_getextraspace(co) = p;
  if (slot < iso->slots_len) {
    iso->holes--;
  } else {
    iso->slots_len++;
  }
  iso->slots[slot] = p;
  iso->pool = p;
  iso->pooled++;
}

/* Slots are made several at a time where there are many, since each call of as_nobody takes time. */
enum { MADE_AT_ONCE = 8 };

static int fill_pool(lua_State *L) {
  struct isolate *iso = lua_touserdata(L, 1);
  int n = iso->slots_len - iso->holes < 2 * MADE_AT_ONCE ? 1 : MADE_AT_ONCE;
  while (n-- > 0) make(L, iso);
  return 0;
}

/* Pushes the table of globals; false, and nothing is pushed, when memory ran out. */
static bool push_env(lua_State *L, struct process *p) {
  struct isolate_refs *refs = &p->isolate->refs;
  lua_rawgeti(L, LUA_REGISTRYINDEX, refs->envs);
  bool there = lua_rawgeti(L, -1, (lua_Integer)p->slot + 1) == LUA_TTABLE;
  lua_replace(L, -2);
  if (there) return true;
  lua_pop(L, 1);
  if (!as_nobody(L, p->isolate, new_env, p->isolate, 1)) return false;
  lua_pushvalue(L, -1);
  keep(L, refs->envs, p->slot); /* the table has this place already, so no memory is needed */
  return true;
}

void process_push_env(lua_State *L, struct process *p) {
  if (!push_env(L, p)) luaL_error(L, "out of memory");
}

struct process *process_new(lua_State *L, struct isolate *iso, uint64_t number, npid leader) {
  if (!iso->pool && !as_nobody(L, iso, fill_pool, iso, 0) && !iso->pool) return NULL;
  struct process *p = iso->pool;
  if (!push_env(L, p)) return NULL;
  iso->pool = p->next;
  iso->pooled--;
  p->pid = npid_make(0, number);
  p->leader = leader;
  p->alive = true;
  p->started = clock_ns();
  facts_begin(p);
  ptab_set(&iso->vm->ptab, number, &iso->runnable, p);
  atomic_store_explicit(&iso->spawned, iso->spawned + 1, memory_order_relaxed);
  return p;
}

void process_charge(struct process *p, int64_t bytes) {
  p->outside += bytes;
  heap_charge(&p->isolate->heap, HEAP_SLOT + p->slot, bytes);
}

/* --- death --- */

void process_doom(struct process *p, struct term *reason) {
  if (p->preemptible.end) {
    term_unref(reason);
    return;
  }
  p->preemptible.end = reason ? reason : term_ref(p->isolate->vm->no_memory);
  process_ready(p);
}

/* Drops the process's globals and modules.  A table of globals that is empty is kept for the slot's next
 * process. */
static void clean_env(struct process *p) {
  lua_State *L = p->isolate->L;
  struct isolate_refs *refs = &p->isolate->refs;
  lua_rawgeti(L, LUA_REGISTRYINDEX, refs->envs);
  if (lua_rawgeti(L, -1, (lua_Integer)p->slot + 1) == LUA_TTABLE) {
    lua_pushnil(L);
    if (lua_next(L, -2)) {
      lua_pop(L, 2);
      lua_pushnil(L);
      lua_rawseti(L, -3, (lua_Integer)p->slot + 1);
    }
  }
  lua_pop(L, 2);
  if (!p->modules) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, refs->loaded);
  lua_pushnil(L);
  lua_rawseti(L, -2, (lua_Integer)p->slot + 1);
  lua_pop(L, 1);
}

enum { WRITER_KEPT = 1 << 20 }; /* the writer's memory beyond that many bytes is freed after a turn */

/* L: the coroutine that is to run, the process's own or another one for it. */
static void enter(struct process *p, lua_State *L) {
  struct isolate *iso = p->isolate;
  p->state = PROCESS_RUNNING;
  iso->current = p;
  int64_t limit = iso->scarce ? budget_limit(p) : (int64_t)iso->config->heap_max;
  if (limit != iso->heap.limit) heap_set_limit(&iso->heap, limit);
  heap_enter(&iso->heap, HEAP_SLOT + p->slot);
  facts_state(p, PROCESS_RUNNING);
  preempt_enter(iso->runnable.scheduler, L);
}

static void leave(struct process *p) {
  struct isolate *iso = p->isolate;
  preempt_leave(iso->runnable.scheduler);
  heap_enter(&iso->heap, HEAP_ISOLATE);
  iso->heap.refused = false;
  iso->current = NULL;
  if (iso->writer.cap > WRITER_KEPT) term_writer_finish(&iso->writer);
}

/* Closes the to-be-closed variables of the process's stack.  That calls functions of the process, so the
 * process must still be whole.  If the process must end, the hook stops each of these functions at its first
 * instruction, as a killed process is to run no more code. */
static void unwind(struct process *p) {
  hooks_allow(p->L);
  if (p->preemptible.end) preempt_now(p->L);
  enter(p, p->L);
  lua_resetthread(p->L);
  lua_settop(p->L, 0);
  leave(p);
  p->isolate->heap.exceeded = false; /* the process ends in any case */
}

static void recycle(struct process *p) {
  struct isolate *iso = p->isolate;
  lua_sethook(p->L, NULL, 0, 0);
  clean_env(p);
  blank(p, iso, p->L, p->slot);
  iso->pool = p;
  iso->pooled++;
}

/* The slots below POOL_KEPT stay: their memory lies in the first chunks, which stay, too. */
enum { POOL_KEPT = 16, POOL_MANY = 64 };

bool process_pool_has_surplus(const struct isolate *iso) {
  uint32_t made = iso->slots_len - iso->holes;
  return iso->pooled >= POOL_MANY && iso->pooled > made - made / 8;
}

/* Frees a pooled process; the collector frees its coroutine later. */
static void drop_slot(struct isolate *iso, struct process *p) {
  const int tables[] = {iso->refs.threads, iso->refs.envs};
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    lua_rawgeti(iso->L, LUA_REGISTRYINDEX, tables[i]);
    lua_pushnil(iso->L);
    lua_rawseti(iso->L, -2, (lua_Integer)p->slot + 1);
    lua_pop(iso->L, 1);
  }
  iso->slots[p->slot] = NULL;
  iso->holes++;
  iso->pooled--;
  heap_alloc(&iso->heap, p, sizeof *p, 0);
}

void process_pool_shrink(struct isolate *iso) {
  struct process *p = iso->pool;
  iso->pool = NULL;
  iso->hole = 0;
  for (struct process *next; p; p = next) {
    next = p->next;
    if (p->slot >= POOL_KEPT) {
      drop_slot(iso, p);
    } else {
      p->next = iso->pool;
      iso->pool = p;
    }
  }
}

/* Drops the encoding of the process that is suspended, if there is one. */
static void drop_paused(struct process *p) {
  struct isolate *iso = p->isolate;
  if (iso->paused.owner != p->pid) return;
  iso->paused.owner = NPID_NONE;
  term_writer_finish(&iso->paused.writer);
}

static void end(struct process *p) {
  struct isolate *iso = p->isolate;
  uint64_t number = npid_number(p->pid);
  struct term *reason = p->preemptible.end;
  unwind(p);
  timers_remove(&iso->timers, &p->timer);
  if (p->full) vm_set_full(iso->vm, p->pid, false);
  ptab_clear(&iso->vm->ptab, number);
  facts_end(p);
  vm_leave_room(iso->vm, &p->room);
  names_drop(iso->config->names, p->pid);
  if (p->order) spawn_failed(p, "the process ended before it began");
  drop_paused(p);
  signal_free(p->taken);
  term_unref(p->reply);
  process_charge(p, -p->outside);
  if (p->files) iso->hooks->leave(p);
  heap_close_account(&iso->heap, p->slot);
  parting_begin(p, reason);
  recycle(p);
}

/* --- errors --- */

enum { REPORT_MAX = 64 << 10 }; /* bytes of a message, or of a traceback, in a report: a millisecond */

/* Sends the text to the group leader, as output to stderr. */
static void put_error(struct process *p, const char *text, size_t n) {
  struct output o = {.is_stderr = true, .from = p->pid, .bytes = text, .n = n};
  isolate_signal(p->isolate, SIGNAL_MESSAGE, p->leader, p->pid, NPID_NONE, output_message(&o));
}

/* The pid of the process in the form that its leader's node understands: the short one begins with the number
 * of a node, which is another on each node. */
static const char *own_pid(const struct process *p, char out[NPID_TEXT_SIZE]) {
  enum npid_style style = npid_is_local(p->leader) ? NPID_SHORT : NPID_FULL;
  return npid_format(p->isolate->config->nodes, p->pid, style, out);
}

/* Appends text of the process for a person to read: line ends and tabs stay, everything else that a terminal
 * would act on is escaped, and what is longer than REPORT_MAX is cut off. */
static void put_shown(struct buf *out, const char *text, size_t n) {
  size_t shown = n < REPORT_MAX ? n : REPORT_MAX;
  for (size_t at = 0, end; at < shown; at = end + 1) {
    for (end = at; end < shown && text[end] != '\n' && text[end] != '\t';) end++;
    buf_escape(out, text + at, end - at);
    if (end < shown) buf_putc(out, text[end]);
  }
  if (shown < n) buf_printf(out, "... and %zu bytes more", n - shown);
}

/* A C function, so that the __tostring that it calls cannot yield.  Arguments: the __tostring, the error. */
static int call_tostring(lua_State *L) {
  lua_call(L, 1, 1);
  return 1;
}

/* Replaces an error object at the top that has a __tostring by the text that this returns, as lua(1) does.
 * The process's own coroutine is dead, so the function runs on another one, within the limits of a callback:
 * it cannot wait, and not run for more than a second.  If it fails, the error object stays. */
static void ask_text(lua_State *L, struct process *p) {
  if (lua_type(L, -1) != LUA_TTABLE || luaL_getmetafield(L, -1, "__tostring") == LUA_TNIL) return;
  int nresults;
  lua_State *co = lua_newthread(L);
  *(struct process **)lua_getextraspace(co) = p;
  lua_insert(L, -2);
  lua_pushcfunction(co, call_tostring);
  lua_xmove(L, co, 1);
  lua_pushvalue(L, -2);
  lua_xmove(L, co, 1);
  enter(p, co);
  int status = lua_resume(co, L, 2, &nresults);
  leave(p);
  p->isolate->heap.exceeded = false; /* the process ends in any case */
  lua_sethook(co, NULL, 0, 0);
  lua_pop(L, 1);
  if (status != LUA_OK || lua_type(co, -1) != LUA_TSTRING) return;
  lua_xmove(co, L, 1);
  lua_replace(L, -2);
}

struct failure {
  struct process *p;
  struct term *reason;
};

/* ["error", message, traceback] of the two strings at the top. */
static struct term *error_reason(lua_State *L) {
  size_t n, m;
  const char *message = lua_tolstring(L, -2, &n), *trace = lua_tolstring(L, -1, &m);
  struct term_writer w = TERM_WRITER_INIT;
  size_t at = term_open(&w, TERM_LIST);
  term_put_text(&w, "error");
  term_put_str(&w, message, n);
  term_put_str(&w, trace, m);
  term_set_count(&w, at, 3);
  struct term *t = term_from_writer(&w, 1);
  term_writer_finish(&w);
  return t;
}

/* Protected: makes ["error", message, traceback] of the error on the dead coroutine's stack, and tells the
 * group leader. */
static int report(lua_State *L) {
  struct failure *f = lua_touserdata(L, 1);
  struct process *p = f->p;
  /* The error is copied, not moved, because __close functions get it, too. */
  if (!lua_checkstack(p->L, 1)) return 0;
  lua_pushvalue(p->L, -1);
  lua_xmove(p->L, L, 1);
  ask_text(L, p);
  p->isolate->hooks->text(L, -1);
  trace_push(L, p->L);
  f->reason = error_reason(L);
  if (p->quiet) return 0;
  char pid[NPID_TEXT_SIZE];
  size_t n, m;
  const char *message = lua_tolstring(L, -2, &n), *trace = lua_tolstring(L, -1, &m);
  struct buf text = BUF_INIT;
  buf_printf(&text, "process %s ended: ", own_pid(p, pid));
  put_shown(&text, message, n);
  buf_putc(&text, '\n');
  put_shown(&text, trace, m);
  buf_putc(&text, '\n');
  if (buf_ok(&text)) put_error(p, text.data, text.len);
  buf_finish(&text);
  return 0;
}

void process_outgrew(struct process *p, const char *what) {
  char pid[NPID_TEXT_SIZE], text[NPID_TEXT_SIZE + 64];
  if (p->preemptible.end) return;
  snprintf(text, sizeof text, "process %s ended: %s\n", own_pid(p, pid), what);
  process_doom(p, NULL);
  put_error(p, text, strlen(text));
}

static void fail(struct process *p) {
  lua_State *L = p->isolate->L;
  struct failure f = {p, NULL};
  lua_pushcfunction(L, report);
  lua_pushlightuserdata(L, &f);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
  unwind(p);
  process_doom(p, f.reason ? f.reason : term_build("s", "error"));
}

/* --- running --- */

static void check_memory(struct process *p) {
  struct heap *h = &p->isolate->heap;
  if (!h->exceeded) return;
  h->exceeded = false;
  bool own = h->limit >= (int64_t)p->isolate->config->heap_max;
  limit_refuse(p->isolate->config->limits, own ? LIMIT_HEAP : LIMIT_MEMORY);
  process_outgrew(p, own ? "it outgrew its memory limit" : BUDGET_TEXT);
}

/* A process that a buffer has brought over its limit must be within it again at the end of its turn. */
static void settle(struct isolate *iso) {
  lua_gc(iso->L, LUA_GCCOLLECT);
  if (heap_is_over(&iso->heap, true)) iso->heap.exceeded = true;
}

static int resume(struct process *p) {
  struct isolate *iso = p->isolate;
  int nargs = p->nargs, nresults;
  p->nargs = 0;
  enter(p, p->L);
  int status = lua_resume(p->L, iso->L, nargs, &nresults);
  /* Buffers of Lua's library ask for memory once only, so an error right after a refusal also means that
   * memory ran out. */
  if (iso->heap.refused && status > LUA_YIELD) iso->heap.exceeded = true;
  if (heap_is_over(&iso->heap, false)) settle(iso);
  leave(p);
  return status;
}

void process_run(struct process *p) {
  if (!p->preemptible.end) {
    int status = resume(p);
    check_memory(p);
    if (p->preemptible.end) {
      /* the process ended itself, or was ended while it ran */
    } else if (status == LUA_YIELD) {
      if (p->state == PROCESS_RUNNING) preempted(p);
      facts_publish(p);
      return;
    } else if (status == LUA_OK) {
      process_doom(p, term_build("s", "normal"));
    } else {
      fail(p);
    }
  }
  if (p->state != PROCESS_READY) end(p); /* a READY process is queued again, and ends when its turn comes */
}

void process_free(struct process *p) {
  if (!p) return;
  if (p->files) p->isolate->hooks->leave(p);
  facts_end(p);
  mailbox_finish(&p->mailbox);
  ties_free(p->isolate, p->ties);
  term_unref(p->preemptible.end);
  signal_free(p->order);
  signal_free(p->taken);
  term_unref(p->reply);
  vm_forget_room(p->isolate->vm, &p->room);
  heap_alloc(&p->isolate->heap, p, sizeof *p, 0);
}
