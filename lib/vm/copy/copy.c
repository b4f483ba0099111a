/* A table that is not a LIST is first written as a MAP.  At the first key that is not a string, the writer
 * goes back to the start of the table and writes it again as a TABLE. */
#include "vm/copy/copy.h"

#include "vm/copy/fn.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"

#include <lauxlib.h>

/* The place of a value, for errors: the chain of keys that lead to it, up to the number of the argument.
 * Lives on the C stack. */
struct place {
  const struct place *up;
  int key; /* stack index of the key; 0: use number */
  lua_Integer number;
};

struct copier {
  lua_State *L;
  struct term_writer *w;
  const char *what;
};

static void put_value(struct copier *c, int index, const struct place *place, int depth);

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

/* --- out --- */

/* Writes all pairs of the table, and returns their number.  With keys_are_strings, stops at the first key
 * that is not a string, with *ok false. */
static uint32_t put_pairs(struct copier *c, int table, const struct place *up, int depth,
                          bool keys_are_strings, bool *ok) {
  lua_State *L = c->L;
  uint32_t n = 0;
  int key = lua_gettop(L) + 1;
  struct place place = {up, key, 0};
  lua_pushnil(L);
  while (lua_next(L, table)) {
    if (keys_are_strings && lua_type(L, key) != LUA_TSTRING) {
      lua_pop(L, 2);
      *ok = false;
      return 0;
    }
    put_value(c, key, &place, depth);
    put_value(c, key + 1, &place, depth);
    lua_pop(L, 1);
    n++;
  }
  *ok = true;
  return n;
}

/* Are the keys exactly the integers 1..n? */
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
  return seen == n;
}

static void put_list(struct copier *c, int table, lua_Integer n, const struct place *up, int depth) {
  size_t at = term_open(c->w, TERM_LIST);
  struct place place = {up, 0, 0};
  for (lua_Integer i = 1; i <= n && !c->w->failed; i++) {
    place.number = i;
    lua_rawgeti(c->L, table, i);
    put_value(c, lua_gettop(c->L), &place, depth);
    lua_pop(c->L, 1);
  }
  term_set_count(c->w, at, (uint32_t)n);
}

static void put_table(struct copier *c, int table, const struct place *place, int depth) {
  lua_State *L = c->L;
  if (depth > TERM_DEPTH_MAX) refuse(c, place, "nested too deep, or in a cycle");
  luaL_checkstack(L, 8, NULL);
  lua_Integer n = (lua_Integer)lua_rawlen(L, table);
  if (is_list(L, table, n)) {
    put_list(c, table, n, place, depth);
    return;
  }
  bool ok = false;
  size_t start = c->w->len;
  size_t at = term_open(c->w, TERM_MAP);
  uint32_t count = n == 0 ? put_pairs(c, table, place, depth, true, &ok) : 0;
  if (!ok && !c->w->failed) {
    c->w->len = start;
    at = term_open(c->w, TERM_TABLE);
    count = put_pairs(c, table, place, depth, false, &ok);
  }
  term_set_count(c->w, at, count);
}

static void put_value(struct copier *c, int index, const struct place *place, int depth) {
  lua_State *L = c->L;
  size_t len;
  const char *s;
  switch (lua_type(L, index)) {
  case LUA_TNIL: term_put_nil(c->w); return;
  case LUA_TBOOLEAN: term_put_bool(c->w, lua_toboolean(L, index)); return;
  case LUA_TNUMBER:
    if (lua_isinteger(L, index)) {
      term_put_int(c->w, lua_tointeger(L, index));
    } else {
      term_put_float(c->w, lua_tonumber(L, index));
    }
    return;
  case LUA_TSTRING:
    s = lua_tolstring(L, index, &len);
    term_put_str(c->w, s, len);
    return;
  case LUA_TLIGHTUSERDATA: term_put_pid(c->w, copy_to_npid(L, index)); return;
  case LUA_TTABLE:
    if (fn_is_library(L, index)) break;
    put_table(c, index, place, depth + 1);
    return;
  case LUA_TFUNCTION: break;
  default:
    lua_pushfstring(L, "a %s cannot be sent", luaL_typename(L, index));
    refuse(c, place, lua_tostring(L, -1));
  }
  const char *problem = fn_encode(L, index, c->w);
  if (problem) refuse(c, place, problem);
}

struct copy copy_begin(lua_State *L) {
  struct isolate *iso = process_of(L)->isolate;
  term_writer_clear(&iso->writer);
  return (struct copy){L, &iso->writer, ++iso->encodings};
}

static void raise_failure(const struct copy *c) {
  luaL_error(c->L, c->w->failed == ERR_TOO_LARGE ? "larger than a message may be (%d MiB)" : "out of memory",
             (int)(TERM_SIZE_MAX >> 20));
}

struct term *copy_end(const struct copy *c, uint32_t count) {
  if (c->number != isolate_of(c->L)->encodings)
    luaL_error(c->L, "another message was begun before the end of this one");
  struct term *t = term_from_writer(c->w, count);
  if (!t) raise_failure(c);
  return t;
}

void copy_out(const struct copy *c, const char *what, int first, int last) {
  struct copier out = {c->L, c->w, what};
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

static int preset(uint32_t count) {
  return count < 1 << 20 ? (int)count : 1 << 20;
}

static void in_list(lua_State *L, struct term_reader *r, uint32_t count) {
  lua_createtable(L, preset(count), 0);
  for (uint32_t i = 1; i <= count; i++) {
    copy_in(L, r);
    lua_rawseti(L, -2, i);
  }
}

static void in_pairs(lua_State *L, struct term_reader *r, uint32_t count) {
  lua_createtable(L, 0, preset(count));
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

/* Stands in for a function that cannot be made here: raises the reason when it is called. */
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

void copy_in(lua_State *L, struct term_reader *r) {
  luaL_checkstack(L, 6, NULL);
  struct term_value v = term_next(r);
  switch (v.tag) {
  case TERM_FALSE: lua_pushboolean(L, 0); return;
  case TERM_TRUE: lua_pushboolean(L, 1); return;
  case TERM_INT: lua_pushinteger(L, v.i); return;
  case TERM_FLOAT: lua_pushnumber(L, v.d); return;
  case TERM_STR: lua_pushlstring(L, v.s, v.len); return;
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

int copy_in_all(lua_State *L, struct term_reader *r) {
  int before = lua_gettop(L);
  while (r->at < r->end) copy_in(L, r);
  return lua_gettop(L) - before;
}
