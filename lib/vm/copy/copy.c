/* A long message is read with a stack of frames beside the Lua stack, which has the tables that are being
 * filled: so the reading can be suspended between two values (copy_in_then).  A short one is read by
 * recursion.
 */
#include "vm/copy/copy.h"

#include "vm/copy/array.h"
#include "vm/copy/fn.h"
#include "vm/lua/pieces.h"
#include "vm/lua/yield.h"
#include "vm/process/isolate.h"
#include "vm/process/multicast.h"
#include "vm/process/process.h"
#include "vm/sched/preempt.h"

#include <lauxlib.h>
#include <limits.h>
#include <string.h>

void copy_push_npid(lua_State *L, npid p) {
  if (p == NPID_NONE) {
    lua_pushnil(L);
  } else {
    lua_pushlightuserdata(L, (void *)(uintptr_t)p);
  }
}

npid copy_to_npid(lua_State *L, int index) {
  return lua_islightuserdata(L, index) ? (npid)(uintptr_t)lua_touserdata(L, index) : NPID_NONE;
}

/* Stores the integers that come next into the new table of n values at the top, which has `from` of them;
 * goes on to `to` at most.  Returns how many the table has. */
static uint32_t in_integers(lua_State *L, struct term_reader *r, uint32_t n, uint32_t from, uint32_t to) {
  struct array_slot *slots = array_of_new(L, process_of(L)->isolate, -1, n);
  struct term_reader at = *r;
  uint32_t i = from;
  for (int64_t v; slots && i < to && term_next_int(&at, &v); i++) slots[i].i = v, slots[i].tag = ARRAY_INT;
  *r = at;
  return i;
}

static void in_value(lua_State *L, struct term_reader *r);

enum { LIST_KEPT = 8 }; /* a list of so many values, or more, is kept for the next receiver */

/* Pushes the list that was kept of an earlier receiver of this message. */
static bool in_kept(lua_State *L, struct isolate *iso, struct term_reader *r, uint32_t count) {
  size_t n = multicast_find(L, iso, r->at);
  if (!n) return false;
  bool copied = array_copy(L, iso, -1, count);
  lua_remove(L, copied ? -2 : -1);
  if (copied) r->at += n;
  return copied;
}

static void push_copy(lua_State *L, struct isolate *iso) {
  size_t n = array_is_flat(L, iso, -1, LIST_KEPT);
  if (!n || !array_copy(L, iso, -1, n)) lua_pushnil(L);
}

static void in_list(lua_State *L, struct term_reader *r, uint32_t count) {
  struct isolate *iso = isolate_of(L);
  const uint8_t *start = r->at;
  luaL_checkstack(L, 6, NULL);
  bool shared = count >= LIST_KEPT && iso->multicast.now;
  if (shared && in_kept(L, iso, r, count)) return;
  lua_createtable(L, (int)count, 0);
  for (uint32_t i = in_integers(L, r, count, 0, count) + 1; i <= count; i++) {
    in_value(L, r);
    lua_rawseti(L, -2, i);
  }
  if (shared)
    multicast_keep(L, iso, start, (size_t)(r->at - start), count * sizeof(struct array_slot), push_copy);
}

/* Stores the pair at the top into the table below it, unless the key is nil or NaN, which a peer can send but
 * a Lua table cannot have as a key. */
static void set_pair(lua_State *L) {
  int type = lua_type(L, -2);
  if (type == LUA_TNIL || (type == LUA_TNUMBER && lua_tonumber(L, -2) != lua_tonumber(L, -2))) {
    lua_pop(L, 2);
  } else {
    lua_rawset(L, -3);
  }
}

static void in_pairs(lua_State *L, struct term_reader *r, uint32_t count) {
  luaL_checkstack(L, 6, NULL);
  lua_createtable(L, 0, (int)count);
  for (uint32_t i = 0; i < count; i++) {
    in_value(L, r);
    in_value(L, r);
    set_pair(L);
  }
}

/* Raises the reason, upvalue 1: stands in for a function that cannot be made here, and for the metamethods of
 * a value that has no room. */
static int raise_reason(lua_State *L) {
  luaL_where(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_concat(L, 2);
  return lua_error(L);
}

/* Pushes the function, or if it cannot be made here, a function that raises the reason. */
static void in_fn(lua_State *L, const struct term_value *v) {
  struct fn_reader f;
  enum fn_step step;
  fn_read_begin(L, &f, v->s, v->len);
  f.whole = true;
  do {
    int work = INT_MAX;
    step = fn_read_on(L, &f, &work);
  } while (step == FN_GOES_ON);
  if (step == FN_REFUSED) lua_pushcclosure(L, raise_reason, 1);
}

const char *copy_why_not(lua_State *L, int index) {
  if (lua_tocfunction(L, index) != raise_reason) return NULL;
  lua_getupvalue(L, index, 1);
  return lua_tostring(L, -1);
}

static void in_string(lua_State *L, const struct term_value *v) {
  if (v->len > MULTICAST_LONG) {
    multicast_push(L, isolate_of(L), v->s, v->len);
  } else {
    lua_pushlstring(L, v->s, v->len);
  }
}

/* Pushes a value that is no table.  Needs one place of the stack, and makes room for what a function needs.
 */
static void in_leaf(lua_State *L, const struct term_value *v) {
  switch (v->tag) {
  case TERM_FALSE: lua_pushboolean(L, 0); return;
  case TERM_TRUE: lua_pushboolean(L, 1); return;
  case TERM_INT: lua_pushinteger(L, v->i); return;
  case TERM_FLOAT: lua_pushnumber(L, v->d); return;
  case TERM_STR: in_string(L, v); return;
  case TERM_PID:
  case TERM_REF: copy_push_npid(L, v->pid); return;
  case TERM_FN: in_fn(L, v); return;
  default: lua_pushnil(L);
  }
}

/* As copy_in, where the stack has a place. */
static void in_value(lua_State *L, struct term_reader *r) {
  struct term_value v = term_next(r);
  switch (v.tag) {
  case TERM_LIST: in_list(L, r, v.count); return;
  case TERM_MAP:
  case TERM_TABLE: in_pairs(L, r, v.count); return;
  default: in_leaf(L, &v);
  }
}

void copy_in(lua_State *L, struct term_reader *r) {
  luaL_checkstack(L, 1, NULL);
  in_value(L, r);
}

/* --- messages for which the receiver may have no room --- */

/* Replaces the text at the top by a value that stands for one that has no room: its field `error` is the
 * text, and any other use of it raises the text. */
static void push_stand_in(lua_State *L) {
  static const char *const events[] = {"__index", "__newindex", "__len", "__pairs", "__call", "__concat"};
  int text = lua_gettop(L);
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, text);
  lua_setfield(L, -2, "error");
  lua_createtable(L, 0, sizeof events / sizeof *events);
  lua_pushvalue(L, text);
  lua_pushcclosure(L, raise_reason, 1);
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, events[i]);
  }
  lua_pop(L, 1);
  lua_setmetatable(L, -2);
  lua_replace(L, text);
}

static void push_no_room(lua_State *L, const struct term_value *v) {
  static const char why[] = "which the memory of this process has no room for";
  if (v->tag == TERM_STR) {
    lua_pushfstring(L, "a string of %I bytes, %s", (lua_Integer)v->len, why);
  } else if (v->tag == TERM_FN) {
    lua_pushfstring(L, "a function, %s", why);
  } else {
    lua_pushfstring(L, "a table of %I values, %s", (lua_Integer)v->count, why);
  }
  push_stand_in(L);
}

static int in_call(lua_State *L) {
  copy_in(L, lua_touserdata(L, 1));
  return 1;
}

/* Is the process within its limit?  A value may have been granted more (heap.h). */
static bool is_within(lua_State *L, const struct heap *h) {
  if (!heap_is_over(h, false)) return true;
  lua_gc(L, LUA_GCCOLLECT);
  return !heap_is_over(h, true);
}

/* The value that was given up may have functions that are half read: no later function may share what these
 * have. */
static void forget_functions(lua_State *L) {
  struct isolate *iso = process_of(L)->isolate;
  fn_scope_end(L, &iso->read, iso->refs.read);
}

/* As copy_in, but pushes a stand-in where memory runs out.  So the process does not end because of it. */
static void in_guarded(lua_State *L, struct term_reader *r) {
  struct heap *h = &process_of(L)->isolate->heap;
  struct term_reader start = *r, again = start;
  lua_pushcfunction(L, in_call);
  lua_pushlightuserdata(L, r);
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_OK && is_within(L, h)) return;
  if (status != LUA_OK && status != LUA_ERRMEM) lua_error(L);
  lua_pop(L, 1);
  heap_forgive(h);
  forget_functions(L);
  lua_gc(L, LUA_GCCOLLECT);
  struct term_value v = term_next(&again);
  push_no_room(L, &v);
  *r = start;
  term_skip(r);
}

enum { ROOM_LEAST = 1 << 16 }; /* bytes of a term that any process is supposed to have room for */

/* May the process lack room for values whose encoding has that many bytes? */
static bool may_lack_room(lua_State *L, size_t bytes) {
  if (bytes < ROOM_LEAST) return false;
  const struct heap *h = &process_of(L)->isolate->heap;
  return (int64_t)bytes > (h->limit - h->account->bytes) / COPY_EXPANSION;
}

/* Makes room for n values on the stack; or pushes one value that stands for them, and returns false. */
static bool has_stack(lua_State *L, int n) {
  if (lua_checkstack(L, n < INT_MAX - 20 ? n + 20 : n)) return true;
  heap_forgive(&process_of(L)->isolate->heap);
  lua_pushfstring(L, "a message of %d values, which the stack of this process has no room for", n);
  push_stand_in(L);
  return false;
}

/* Pushes all values; or, where the stack has no room for so many, one value that stands for them. */
static void in_many(lua_State *L, struct term_reader *r) {
  struct term_reader count = *r;
  int n = 0;
  for (; count.at < count.end; n++) term_skip(&count);
  if (!has_stack(L, n)) *r = count;
  while (r->at < r->end) in_guarded(L, r);
}

static int in_all(lua_State *L, struct term_reader *r) {
  int before = lua_gettop(L);
  if (may_lack_room(L, (size_t)(r->end - r->at))) in_many(L, r);
  while (r->at < r->end) copy_in(L, r);
  return lua_gettop(L) - before;
}

static void end_scope(lua_State *L) {
  struct isolate *iso = process_of(L)->isolate;
  if (iso->read.objects) fn_scope_end(L, &iso->read, iso->refs.read);
}

int copy_in_all(lua_State *L, struct term_reader *r) {
  int n = in_all(L, r);
  end_scope(L);
  return n;
}

/* --- long messages --- */

/* A table that is being filled. */
struct filling {
  uint32_t i, count;
  bool pairs, has_key; /* has_key: the key of the next pair is at the top */
};

struct decoder {
  struct term *term;
  struct term_reader r, start; /* start: of the value */
  copy_pushed *then;
  lua_KContext context;
  uint32_t left;       /* values to be pushed */
  int depth, work;     /* work: until it looks whether to give way */
  bool no_room;        /* the process may not hold the value */
  struct pieces *text; /* the string at the top, of which a part is there, or NULL; */
  const char *from;    /* and all its bytes */
  bool in_function;    /* a function is being read: */
  struct fn_reader fn;
  struct fn_scope scope; /* while it is suspended */
  struct filling tables[TERM_DEPTH_MAX];
};

/* The stack of a value that is being read: the decoder, the tables and keys. */
enum { DECODER = 1, AT_ONCE = 512, WORK = 2048 };

/* Keeps the functions of the message, which may share variables, while other messages are read. */
static void suspend(lua_State *L, struct decoder *d, int index) {
  struct isolate *iso = process_of(L)->isolate;
  d->scope = iso->read;
  if (d->scope.stage != FN_NONE) {
    luaL_checkstack(L, 2, NULL);
    lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.read);
    lua_setiuservalue(L, index, 1);
  }
  fn_scope_end(L, &iso->read, iso->refs.read);
}

static void resume(lua_State *L, struct decoder *d, int index) {
  struct isolate *iso = process_of(L)->isolate;
  multicast_begin(iso, d->term);
  fn_scope_end(L, &iso->read, iso->refs.read);
  if (d->scope.stage != FN_NONE) {
    luaL_checkstack(L, 2, NULL);
    lua_getiuservalue(L, index, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, iso->refs.read);
  }
  iso->read = d->scope;
}

/* Begins a table; true: it is a short list of integers, or empty, and so complete. */
static bool begin_table(lua_State *L, struct decoder *d, const struct term_value *v) {
  bool pairs = v->tag != TERM_LIST;
  if (d->depth == TERM_DEPTH_MAX) luaL_error(L, "a message is nested too deep");
  luaL_checkstack(L, 20, NULL);
  lua_createtable(L, pairs ? 0 : (int)v->count, pairs ? (int)v->count : 0);
  uint32_t i = pairs || v->count > AT_ONCE ? 0 : in_integers(L, &d->r, v->count, 0, v->count);
  d->work -= (int)i / 8;
  if (i == v->count) return true;
  d->tables[d->depth++] = (struct filling){i, v->count, pairs, false};
  return false;
}

/* Strings that other receivers may share are pushed in one step. */
static bool is_in_pieces(lua_State *L, const struct term_value *v) {
  return v->tag == TERM_STR && v->len > PIECE && !process_of(L)->isolate->multicast.now;
}

/* Stores the value at the top into its table; true: it is the whole value. */
static bool attach(lua_State *L, struct decoder *d) {
  if (d->depth == 0) return true;
  struct filling *t = &d->tables[d->depth - 1];
  if (!t->pairs) {
    lua_rawseti(L, -2, ++t->i);
  } else if (!t->has_key) {
    t->has_key = true;
  } else {
    t->has_key = false;
    t->i++;
    set_pair(L);
  }
  return false;
}

/* Begins with a long string, whose pieces are to follow. */
static void begin_text(lua_State *L, struct decoder *d, const char *bytes, size_t len) {
  d->no_room = true; /* as long as pieces_push has not returned */
  d->from = bytes;
  d->text = pieces_push(L, len);
  d->no_room = false;
}

/* Pushes the next piece of a long string. */
static void copy_piece(lua_State *L, struct decoder *d) {
  struct pieces *p = d->text;
  size_t n = pieces_next(p);
  memcpy(p->bytes + p->at, d->from + p->at, n);
  p->at += n;
  d->work = 0;
  if (p->at < p->len) return;
  pieces_finish(L, -1);
  d->text = NULL;
}

/* Goes on with a function; true: it is the whole value. */
static bool read_function(lua_State *L, struct decoder *d) {
  enum fn_step step = fn_read_on(L, &d->fn, &d->work);
  if (step == FN_GOES_ON) return false;
  if (step == FN_TEXT) {
    begin_text(L, d, d->fn.text, d->fn.len);
    return false;
  }
  d->in_function = false;
  if (step == FN_REFUSED) lua_pushcclosure(L, raise_reason, 1);
  return attach(L, d);
}

/* Reads the integers that come next in a list, some at a time. */
static void read_integers(lua_State *L, struct decoder *d, struct filling *t) {
  uint32_t end = t->count - t->i > AT_ONCE ? t->i + AT_ONCE : t->count, before = t->i;
  t->i = in_integers(L, &d->r, t->count, t->i, end);
  d->work -= (int)(t->i - before) / 8;
}

/* Reads on: true when the whole value is at the top, false when a long string or function has begun, or when
 * it is time to look whether to give way. */
static bool read_on(lua_State *L, struct decoder *d) {
  for (; d->work > 0; d->work--) {
    struct filling *t = d->depth > 0 ? &d->tables[d->depth - 1] : NULL;
    if (t && !t->pairs && t->i < t->count && *d->r.at == TERM_INT) read_integers(L, d, t);
    if (t && t->i == t->count) {
      d->depth--;
      if (attach(L, d)) return true;
      continue;
    }
    struct term_value v = term_next(&d->r);
    if (v.tag == TERM_LIST || v.tag == TERM_MAP || v.tag == TERM_TABLE) {
      if (begin_table(L, d, &v) && attach(L, d)) return true;
    } else if (is_in_pieces(L, &v)) {
      begin_text(L, d, v.s, v.len);
      return false;
    } else if (v.tag == TERM_FN && v.len > PIECE) {
      fn_read_begin(L, &d->fn, v.s, v.len);
      d->in_function = true;
      return false;
    } else {
      in_leaf(L, &v);
      if (v.tag == TERM_STR) d->work -= (int)(v.len / 64);
      if (v.tag == TERM_FN) d->work -= (int)(v.len / 16);
      if (attach(L, d)) return true;
    }
  }
  return false;
}

static bool is_due(lua_State *L, struct decoder *d) {
  if (d->work > 0) return false;
  d->work = WORK;
  if (!yield_due(L)) return false;
  d->no_room = !is_within(L, &process_of(L)->isolate->heap);
  return !d->no_room || (lua_pushnil(L), lua_error(L));
}

static int value_on(lua_State *L, int status, lua_KContext context) {
  (void)context;
  struct decoder *d = lua_touserdata(L, DECODER);
  if (status == LUA_YIELD) resume(L, d, DECODER);
  for (;;) {
    if (d->text) {
      copy_piece(L, d);
      if (!d->text && !d->in_function && attach(L, d)) return 1;
    } else if (d->in_function) {
      if (read_function(L, d)) return 1;
    } else if (read_on(L, d)) {
      return 1;
    }
    if (!is_due(L, d)) continue;
    suspend(L, d, DECODER);
    return lua_yieldk(L, 0, 0, value_on);
  }
}

static int long_value(lua_State *L) {
  return value_on(L, LUA_OK, 0);
}

/* Puts a stand-in in the place of the value for which there is no room. */
static void replace_value(lua_State *L, struct decoder *d) {
  lua_pop(L, 1);
  heap_forgive(&process_of(L)->isolate->heap);
  forget_functions(L);
  lua_gc(L, LUA_GCCOLLECT);
  d->r = d->start;
  struct term_value v = term_next(&d->r);
  push_no_room(L, &v);
  d->r = d->start;
  if (d->left > 1) {
    term_skip(&d->r);
  } else {
    d->r.at = d->r.end;
  }
}

/* The reading of a value has ended, with this status. */
static void end_value(lua_State *L, struct decoder *d, int status) {
  if (status == LUA_OK || status == LUA_YIELD) {
    if (!is_within(L, &process_of(L)->isolate->heap)) replace_value(L, d);
  } else if (status == LUA_ERRMEM || d->no_room) {
    replace_value(L, d);
  } else {
    lua_error(L);
  }
  d->left--;
}

/* Does the reader end where the message ends?  If not, later values may share variables with these. */
static bool is_last(const struct term *t, const struct term_reader *r) {
  return !t || r->end == t->bytes + t->size;
}

/* Takes the decoder from below the values. */
static int end_values(lua_State *L, int place) {
  const struct decoder *d = lua_touserdata(L, place);
  struct process *p = process_of(L);
  copy_pushed *then = d->then;
  lua_KContext context = d->context;
  if (is_last(d->term, &d->r)) end_scope(L);
  if (p->preemptible.interrupted) preempt_now(L);
  lua_remove(L, place);
  return then(L, lua_gettop(L) - place + 1, context);
}

static int values_on(lua_State *L, int status, lua_KContext place);

static int value_read(lua_State *L, int status, lua_KContext place) {
  end_value(L, lua_touserdata(L, (int)place), status);
  return values_on(L, LUA_OK, place);
}

/* place: of the decoder; the values are above it. */
static int values_on(lua_State *L, int status, lua_KContext place) {
  struct decoder *d = lua_touserdata(L, (int)place);
  if (status == LUA_YIELD) resume(L, d, (int)place);
  while (d->left > 0) {
    if (d->work <= 0) {
      d->work = WORK;
      if (yield_due(L)) {
        suspend(L, d, (int)place);
        return lua_yieldk(L, 0, place, values_on);
      }
    }
    d->start = d->r;
    d->depth = 0;
    d->text = NULL;
    d->in_function = false;
    d->no_room = false;
    lua_pushcfunction(L, long_value);
    lua_pushvalue(L, (int)place);
    end_value(L, d, lua_pcallk(L, 1, 1, 0, place, value_read));
  }
  return end_values(L, (int)place);
}

int copy_in_then(lua_State *L, struct term *t, struct term_reader r, uint32_t count, copy_pushed *then,
                 lua_KContext context) {
  multicast_begin(process_of(L)->isolate, t);
  if (r.end - r.at <= PIECE || !lua_isyieldable(L)) {
    int n = in_all(L, &r);
    if (is_last(t, &r)) end_scope(L);
    return then(L, n, context);
  }
  luaL_checkstack(L, 8, NULL);
  struct decoder *d = lua_newuserdatauv(L, sizeof *d, 1);
  int place = lua_gettop(L);
  d->term = t;
  d->r = r;
  d->left = has_stack(L, count < INT_MAX ? (int)count : INT_MAX) ? count : 0;
  d->then = then;
  d->context = context;
  d->work = WORK;
  return values_on(L, LUA_OK, place);
}

static int taken(lua_State *L, int n, lua_KContext context) {
  (void)context;
  struct process *p = process_of(L);
  signal_free(p->taken);
  p->taken = NULL;
  return n;
}

int copy_taken(lua_State *L) {
  struct term *t = process_of(L)->taken->term;
  return copy_in_then(L, t, term_read(t), t ? t->count : 0, taken, 0);
}
