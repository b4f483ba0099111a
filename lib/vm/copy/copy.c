/* A table may be met on many paths: 25 tables, each twice in the next one, are met on 2^25.  So a message
 * that has many tables remembers where the larger ones are in the term, and repeats these bytes instead of
 * walking the table again.  A table with functions is walked again, since a second copy of a function refers
 * to the first. */
#include "vm/copy/copy.h"

#include "vm/copy/array.h"
#include "vm/copy/fn.h"
#include "vm/process/common.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The place of a value, for errors: the chain of keys that lead to it, up to the number of the argument.
 * Lives on the C stack. */
struct place {
  const struct place *up;
  int key; /* stack index of the key; 0: use number */
  lua_Integer number;
};

/* Where a table is in the term. */
struct memo {
  const void *table;
  uint32_t start, len;
  int height; /* how deep its values are nested */
};

/* From MEMO_FROM tables on, those of MEMO_LEAST bytes or more are remembered, each at a place that its
 * address determines. */
enum { MEMO_FROM = 1000, MEMO_LEAST = 256, MEMO_PLACES = 256 };

struct copier {
  lua_State *L;
  struct isolate *iso;
  struct term_writer *w;
  const char *what;
  uint32_t tables, functions;
  size_t weighed; /* the part of the term for which weight counts */
  size_t weight;
  struct memo memos[MEMO_PLACES]; /* valid from MEMO_FROM tables on */
};

/* Returns how deep the value is nested: 0 if it is no table. */
static int put_value(struct copier *c, int index, const struct place *place, int depth);

/* --- errors --- */

static void add_place(lua_State *L, luaL_Buffer *b, const struct place *place) {
  if (place->up) add_place(L, b, place->up);
  if (place->key && lua_type(L, place->key) == LUA_TSTRING) {
    luaL_addchar(b, '.');
    luaL_addstring(b, lua_tostring(L, place->key));
  } else if (place->key && !lua_isinteger(L, place->key)) {
    lua_pushfstring(L, "[%s]", luaL_typename(L, place->key));
    luaL_addvalue(b);
  } else {
    lua_pushfstring(L, "[%I]", place->key ? lua_tointeger(L, place->key) : place->number);
    luaL_addvalue(b);
  }
}

/* Returns the place of the first `keep` keys: a path of a thousand keys would not help the reader of an
 * error. */
static const struct place *cut(const struct place *place, int keep) {
  int depth = 0;
  for (const struct place *at = place; at; at = at->up) depth++;
  for (; depth > keep; depth--) place = place->up;
  return place;
}

static void refuse(struct copier *c, const struct place *place, const char *problem) {
  lua_State *L = c->L;
  luaL_Buffer b;
  luaL_checkstack(L, 20, NULL);
  luaL_buffinit(L, &b);
  luaL_addstring(&b, c->what);
  add_place(L, &b, cut(place, 16));
  luaL_addstring(&b, ": ");
  luaL_addstring(&b, problem);
  luaL_pushresult(&b);
  luaL_error(L, "%s", lua_tostring(L, -1));
}

/* --- weight --- */

enum { TABLE_BYTES = 64, SLOT_BYTES = 16, NODE_BYTES = 24, STRING_BYTES = 32, SHORT_MAX = 40 };

/* The least memory that the values need at the receiver; short strings may be there already.  Counts no
 * further than to `enough`. */
static size_t weigh(struct term_reader r, size_t enough) {
  size_t sum = 0;
  while (r.at < r.end && sum <= enough) {
    struct term_value v = term_next(&r);
    if (v.tag == TERM_LIST) sum += TABLE_BYTES + (size_t)v.count * SLOT_BYTES;
    if (v.tag == TERM_MAP || v.tag == TERM_TABLE) sum += TABLE_BYTES + (size_t)v.count * NODE_BYTES;
    if (v.tag == TERM_STR && v.len > SHORT_MAX) sum += STRING_BYTES + v.len;
  }
  return sum;
}

/* A byte of a term takes this many bytes of memory at most, so short terms need not be weighed. */
enum { EXPANSION = 32, WEIGH_STEP = 1 << 20 };

/* Called at the end of a table: refuses a message that no process could receive. */
static void check_weight(struct copier *c, const struct place *place) {
  size_t limit = c->iso->config->heap_max;
  if (c->w->failed || c->w->len - c->weighed < WEIGH_STEP || c->w->len < limit / EXPANSION) return;
  c->weight += weigh((struct term_reader){c->w->data + c->weighed, c->w->data + c->w->len}, limit);
  c->weighed = c->w->len;
  if (c->weight <= limit) return;
  char problem[80];
  snprintf(problem, sizeof problem, "larger than the memory of a process may be (%zu MiB)", limit >> 20);
  refuse(c, cut(place, 1), problem);
}

/* --- tables that were met before --- */

static struct memo *memo_of(struct copier *c, const void *table) {
  return &c->memos[((uintptr_t)table >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 56];
}
_Static_assert(MEMO_PLACES == 1 << 8, "8 bits of the hash are a place");

/* Writes the table again as it is in the term; returns 0 if it is not known where that is, or if it would be
 * nested too deep here. */
static int repeat(struct copier *c, const void *table, int depth) {
  if (c->tables < MEMO_FROM) return 0;
  const struct memo *m = memo_of(c, table);
  if (m->table != table || depth + m->height - 1 > TERM_DEPTH_MAX) return 0;
  uint8_t *to = term_room(c->w, m->len);
  if (to) {
    memcpy(to, c->w->data + m->start, m->len);
    term_close_room(c->w, to + m->len);
  }
  return m->height;
}

static void note(struct copier *c, const void *table, size_t start, int height) {
  if (c->tables < MEMO_FROM || c->w->failed || c->w->len - start < MEMO_LEAST) return;
  *memo_of(c, table) = (struct memo){table, (uint32_t)start, (uint32_t)(c->w->len - start), height};
}

static void count_table(struct copier *c) {
  if (++c->tables == MEMO_FROM) memset(c->memos, 0, sizeof c->memos);
}

/* --- out --- */

static int higher(int a, int b) {
  return a > b ? a : b;
}

/* Writes the table as a MAP, which becomes a TABLE at the first key that is not a string. */
static int put_pairs(struct copier *c, int table, const struct place *up, int depth) {
  lua_State *L = c->L;
  uint32_t n = 0;
  int key = lua_gettop(L) + 1, height = 0;
  bool map = true;
  struct place place = {up, key, 0};
  size_t at = term_open(c->w, TERM_MAP);
  lua_pushnil(L);
  while (lua_next(L, table)) {
    if (map && lua_type(L, key) != LUA_TSTRING) {
      map = false;
      term_set_table(c->w, at);
    }
    height = higher(height, put_value(c, key, &place, depth));
    height = higher(height, put_value(c, key + 1, &place, depth));
    lua_pop(L, 1);
    n++;
  }
  term_set_count(c->w, at, n);
  return height;
}

/* Are the keys integers from 1 to n, and at least half of these? */
static bool is_list(lua_State *L, int table, lua_Integer n) {
  lua_Integer seen = 0;
  lua_pushnil(L);
  while (lua_next(L, table)) {
    lua_pop(L, 1);
    bool fits = lua_isinteger(L, -1) && lua_tointeger(L, -1) >= 1 && lua_tointeger(L, -1) <= n;
    if (!fits) {
      lua_pop(L, 1);
      return false;
    }
    seen++;
  }
  return seen >= n - seen;
}

enum { AT_ONCE = 512 };

/* Writes the numbers at the begin of an array, and returns how many these are. */
static lua_Integer put_numbers(struct copier *c, const struct array_slot *slots, lua_Integer n) {
  lua_Integer i = 0;
  for (lua_Integer end = 0; i == end && i < n;) {
    end = n - i > AT_ONCE ? i + AT_ONCE : n;
    uint8_t *at = term_room(c->w, (size_t)(end - i) * TERM_NUMBER_MAX);
    if (!at) return n;
    for (; i < end; i++) {
      if (slots[i].tag == ARRAY_INT) {
        at = term_write_int(at, slots[i].i);
      } else if (slots[i].tag == ARRAY_FLOAT) {
        at = term_write_float(at, slots[i].d);
      } else {
        break;
      }
    }
    term_close_room(c->w, at);
  }
  return i;
}

/* slots: the values, if these are in an array, or NULL. */
static int put_list(struct copier *c, int table, lua_Integer n, const struct array_slot *slots,
                    const struct place *up, int depth) {
  size_t at = term_open(c->w, TERM_LIST);
  int height = 0;
  struct place place = {up, 0, 0};
  for (lua_Integer i = (slots ? put_numbers(c, slots, n) : 0) + 1; i <= n && !c->w->failed; i++) {
    place.number = i;
    lua_rawgeti(c->L, table, i);
    height = higher(height, put_value(c, lua_gettop(c->L), &place, depth));
    lua_pop(c->L, 1);
  }
  term_set_count(c->w, at, (uint32_t)n);
  return height;
}

static int put_contents(struct copier *c, int table, const struct place *place, int depth) {
  lua_Integer n = (lua_Integer)lua_rawlen(c->L, table);
  const struct array_slot *slots = array_of_list(c->L, c->iso, table, (size_t)n);
  if (slots || is_list(c->L, table, n)) return put_list(c, table, n, slots, place, depth);
  return put_pairs(c, table, place, depth);
}

static int put_table(struct copier *c, int table, const struct place *place, int depth) {
  if (depth > TERM_DEPTH_MAX) refuse(c, place, "nested too deep, or in a cycle");
  const void *address = lua_topointer(c->L, table);
  int height = repeat(c, address, depth);
  if (!height) {
    size_t start = c->w->len;
    uint32_t functions = c->functions;
    luaL_checkstack(c->L, 8, NULL);
    count_table(c);
    height = 1 + put_contents(c, table, place, depth);
    if (functions == c->functions) note(c, address, start, height);
  }
  check_weight(c, place);
  return height;
}

/* Writes a function, or a table of the library. */
static void put_function(struct copier *c, int index, const struct place *place) {
  c->functions++;
  const char *problem = fn_encode(c->L, index, c->w);
  if (problem) refuse(c, place, problem);
}

static int put_value(struct copier *c, int index, const struct place *place, int depth) {
  lua_State *L = c->L;
  size_t len;
  const char *s;
  switch (lua_type(L, index)) {
  case LUA_TNIL: term_put_nil(c->w); return 0;
  case LUA_TBOOLEAN: term_put_bool(c->w, lua_toboolean(L, index)); return 0;
  case LUA_TNUMBER:
    if (lua_isinteger(L, index)) {
      term_put_int(c->w, lua_tointeger(L, index));
    } else {
      term_put_float(c->w, lua_tonumber(L, index));
    }
    return 0;
  case LUA_TSTRING:
    s = lua_tolstring(L, index, &len);
    term_put_str(c->w, s, len);
    return 0;
  case LUA_TLIGHTUSERDATA: term_put_pid(c->w, copy_to_npid(L, index)); return 0;
  case LUA_TTABLE:
    if (!fn_is_library(L, index)) return put_table(c, index, place, depth + 1);
    put_function(c, index, place);
    return 0;
  case LUA_TFUNCTION: put_function(c, index, place); return 0;
  default:
    lua_pushfstring(L, "a %s cannot be sent", luaL_typename(L, index));
    refuse(c, place, lua_tostring(L, -1));
  }
  return 0;
}

struct copy copy_begin(lua_State *L) {
  struct isolate *iso = process_of(L)->isolate;
  if (iso->written.objects) fn_scope_end(L, &iso->written, iso->refs.written);
  term_writer_clear(&iso->writer);
  return (struct copy){L, &iso->writer, ++iso->encodings};
}

static void raise_failure(const struct copy *c) {
  luaL_error(c->L, c->w->failed == ERR_TOO_LARGE ? "larger than a message may be (%d MiB)" : "out of memory",
             (int)(TERM_SIZE_MAX >> 20));
}

struct term *copy_end(const struct copy *c, uint32_t count) {
  struct isolate *iso = isolate_of(c->L);
  if (c->number != iso->encodings) luaL_error(c->L, "another message was begun before the end of this one");
  if (iso->written.objects) fn_scope_end(c->L, &iso->written, iso->refs.written);
  struct term *t = term_take(c->w, count);
  if (!t) raise_failure(c);
  return t;
}

void copy_out(const struct copy *c, const char *what, int first, int last) {
  struct copier out;
  out.L = c->L, out.iso = process_of(c->L)->isolate, out.w = c->w, out.what = what;
  out.tables = out.functions = 0;
  out.weighed = c->w->len, out.weight = 0;
  for (int i = first; i <= last; i++) {
    struct place place = {NULL, 0, i - first + 1};
    put_value(&out, i, &place, 0);
  }
  if (c->w->failed) raise_failure(c);
}

struct term *copy_term(lua_State *L, const char *what, int first, int last) {
  struct copy c = copy_begin(L);
  copy_out(&c, what, first, last);
  return copy_end(&c, last < first ? 0 : (uint32_t)(last - first + 1));
}

/* --- in --- */

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

/* Stores the integers that come next, up to n, into the new table at the top; returns how many. */
static uint32_t in_integers(lua_State *L, struct term_reader *r, uint32_t n) {
  struct array_slot *slots = array_of_new(L, process_of(L)->isolate, -1, n);
  uint32_t i = 0;
  for (int64_t v; slots && i < n && term_next_int(r, &v); i++) slots[i].i = v, slots[i].tag = ARRAY_INT;
  return i;
}

static void in_list(lua_State *L, struct term_reader *r, uint32_t count) {
  lua_createtable(L, (int)count, 0);
  for (uint32_t i = in_integers(L, r, count) + 1; i <= count; i++) {
    copy_in(L, r);
    lua_rawseti(L, -2, i);
  }
}

static void in_pairs(lua_State *L, struct term_reader *r, uint32_t count) {
  lua_createtable(L, 0, (int)count);
  for (uint32_t i = 0; i < count; i++) {
    copy_in(L, r);
    copy_in(L, r);
    if (lua_isnil(L, -2) || (lua_type(L, -2) == LUA_TNUMBER && lua_tonumber(L, -2) != lua_tonumber(L, -2))) {
      lua_pop(L, 2); /* nil or NaN, which a peer can send but a Lua table cannot have as a key */
    } else {
      lua_rawset(L, -3);
    }
  }
}

static int decode_fn(lua_State *L) {
  const struct term_value *v = lua_touserdata(L, 1);
  fn_decode(L, v->s, v->len);
  return 1;
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
  lua_pushcfunction(L, decode_fn);
  lua_pushlightuserdata(L, (void *)(uintptr_t)v);
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_OK) return;
  if (status == LUA_ERRMEM) lua_error(L);
  lua_pushcclosure(L, raise_reason, 1);
}

static void in_string(lua_State *L, const struct term_value *v) {
  if (v->len > COMMON_LEAST) {
    common_push(L, isolate_of(L), v->s, v->len);
  } else {
    lua_pushlstring(L, v->s, v->len);
  }
}

void copy_in(lua_State *L, struct term_reader *r) {
  luaL_checkstack(L, 6, NULL);
  struct term_value v = term_next(r);
  switch (v.tag) {
  case TERM_FALSE: lua_pushboolean(L, 0); return;
  case TERM_TRUE: lua_pushboolean(L, 1); return;
  case TERM_INT: lua_pushinteger(L, v.i); return;
  case TERM_FLOAT: lua_pushnumber(L, v.d); return;
  case TERM_STR: in_string(L, &v); return;
  case TERM_LIST: in_list(L, r, v.count); return;
  case TERM_MAP:
  case TERM_TABLE: in_pairs(L, r, v.count); return;
  case TERM_PID:
  case TERM_REF: copy_push_npid(L, v.pid); return;
  case TERM_FN: in_fn(L, &v); return;
  case TERM_NIL:
  case TERM_END: break;
  }
  lua_pushnil(L);
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

static int in_value(lua_State *L) {
  copy_in(L, lua_touserdata(L, 1));
  return 1;
}

/* Is the process within its limit?  A value may have been granted more (heap.h). */
static bool is_within(lua_State *L, const struct heap *h) {
  if (!heap_is_over(h, false)) return true;
  lua_gc(L, LUA_GCCOLLECT);
  return !heap_is_over(h, true);
}

/* As copy_in, but pushes a stand-in where memory runs out.  So the process does not end because of it. */
static void in_guarded(lua_State *L, struct term_reader *r) {
  struct heap *h = &process_of(L)->isolate->heap;
  struct term_reader start = *r, again = start;
  lua_pushcfunction(L, in_value);
  lua_pushlightuserdata(L, r);
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_OK && is_within(L, h)) return;
  if (status != LUA_OK && status != LUA_ERRMEM) lua_error(L);
  lua_pop(L, 1);
  heap_forgive(h);
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
  return (int64_t)bytes > (h->limit - h->account->bytes) / EXPANSION;
}

/* Pushes all values; or, where the stack has no room for so many, one value that stands for them. */
static void in_many(lua_State *L, struct term_reader *r) {
  struct term_reader count = *r;
  int n = 0;
  for (; count.at < count.end; n++) term_skip(&count);
  if (!lua_checkstack(L, n < INT_MAX - 20 ? n + 20 : n)) {
    heap_forgive(&process_of(L)->isolate->heap);
    lua_pushfstring(L, "a message of %d values, which the stack of this process has no room for", n);
    push_stand_in(L);
    *r = count;
  }
  while (r->at < r->end) in_guarded(L, r);
}

int copy_in_all(lua_State *L, struct term_reader *r) {
  struct isolate *iso = process_of(L)->isolate;
  int before = lua_gettop(L);
  if (may_lack_room(L, (size_t)(r->end - r->at))) in_many(L, r);
  while (r->at < r->end) copy_in(L, r);
  if (iso->read.objects) fn_scope_end(L, &iso->read, iso->refs.read);
  return lua_gettop(L) - before;
}
