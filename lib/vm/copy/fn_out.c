/* Encodes functions.  A Lua table, `seen`, has the number of each object and each cell that was met before in
 * the message; an object gets its number before its contents are written, so that a cycle refers to that
 * number.
 *
 * Most messages have one function at most, and that is a FLAT one, which needs no such table.  So the first
 * function is only remembered (FN_ONE); the second one brings it into a table, and marks it in the term as
 * one that is referred to (FN_MANY). */
#include "vm/copy/fn.h"

#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/copy/fn_format.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <string.h>

struct encoder {
  lua_State *L;
  struct isolate *iso;
  struct term_writer *w;
  struct fn_scope *scope;
  int seen; /* stack index: object or cell -> its number, globals -> 0 */
  const char *problem;
};

static void put(struct encoder *e, int index, int depth);

static void put_tag(struct encoder *e, enum fn_tag tag) {
  uint8_t byte = (uint8_t)tag;
  term_put_raw(e->w, &byte, 1);
}

static void put_u32(struct encoder *e, uint32_t n) {
  term_put_raw(e->w, &n, sizeof n);
}

static void put_bytes(struct encoder *e, enum fn_tag tag, const char *s, size_t n) {
  put_tag(e, tag);
  put_u32(e, (uint32_t)n);
  term_put_raw(e->w, s, n);
}

static void put_pid(struct encoder *e, npid p) {
  const struct nodetab *nodes = e->iso->config->nodes;
  uint32_t incarnation = npid_incarnation(p), creation = nodetab_creation(nodes, incarnation);
  uint64_t number = npid_number(p) | (npid_is_ref(p) ? REF_BIT : 0);
  const char *name = nodetab_name(nodes, incarnation);
  put_tag(e, PID);
  term_put_raw(e->w, &number, sizeof number);
  put_u32(e, creation);
  put_u32(e, (uint32_t)strlen(name));
  term_put_raw(e->w, name, strlen(name));
}

/* Pops a key, and stores its number in *out.  Returns false when `seen` already had the number; else gives
 * the key the next number, and returns true. */
static bool number(struct encoder *e, uint32_t *counter, uint32_t *out) {
  lua_State *L = e->L;
  lua_pushvalue(L, -1);
  if (lua_rawget(L, e->seen) == LUA_TNUMBER) {
    *out = (uint32_t)lua_tointeger(L, -1);
    lua_pop(L, 2);
    return false;
  }
  lua_pop(L, 1);
  *out = ++*counter;
  lua_pushinteger(L, *out);
  lua_rawset(L, e->seen);
  return true;
}

/* Writes tag, body and count of upvalues, and returns the count. */
static uint32_t put_body(struct encoder *e, enum fn_tag tag, int index) {
  const struct factory *f = factory_of(e->L, e->iso, index, &e->problem);
  if (!f) return 0;
  put_bytes(e, tag, (const char *)f->body, f->len);
  uint8_t count = (uint8_t)f->upvalues;
  term_put_raw(e->w, &count, 1);
  return count;
}

static void put_upvalue(struct encoder *e, int index, int i, int depth) {
  lua_State *L = e->L;
  uint32_t cell;
  lua_pushlightuserdata(L, lua_upvalueid(L, index, i));
  bool fresh = number(e, &e->scope->cells, &cell);
  put_u32(e, cell);
  if (!fresh) return;
  const char *name = lua_getupvalue(L, index, i);
  put(e, lua_gettop(L), depth);
  if (e->problem && name && *name) {
    lua_Debug ar;
    lua_pushvalue(L, index);
    lua_getinfo(L, ">S", &ar);
    e->problem = lua_pushfstring(L, "the function at %s:%d cannot be sent: '%s': %s", ar.short_src,
                                 ar.linedefined, name, e->problem);
    lua_replace(L, -2);
    return;
  }
  lua_pop(L, 1);
}

static void put_function(struct encoder *e, int index, int depth) {
  lua_State *L = e->L;
  if (lua_iscfunction(L, index)) {
    e->problem = "a C function cannot be sent";
    return;
  }
  uint32_t count = put_body(e, FUNCTION, index);
  for (uint32_t i = 1; i <= count && !e->problem; i++) put_upvalue(e, index, (int)i, depth);
}

/* Has the metatable at the top a finalizer, which the receiver would refuse? */
static bool has_finalizer(lua_State *L) {
  lua_pushliteral(L, "__gc");
  bool has = lua_rawget(L, -2) != LUA_TNIL;
  lua_pop(L, 1);
  return has;
}

static void put_table(struct encoder *e, int index, int depth) {
  lua_State *L = e->L;
  put_tag(e, TABLE);
  uint8_t has_meta = lua_getmetatable(L, index) ? 1 : 0;
  if (has_meta && has_finalizer(L)) e->problem = "a table with a __gc metamethod cannot be sent";
  lua_pop(L, has_meta);
  term_put_raw(e->w, &has_meta, 1);
  lua_pushnil(L);
  while (!e->problem && lua_next(L, index)) {
    int key = lua_gettop(L) - 1;
    put(e, key, depth);
    if (!e->problem) put(e, key + 1, depth);
    if (!e->problem) lua_pop(L, 1);
  }
  if (e->problem) return;
  put_tag(e, NIL);
  if (!has_meta) return;
  lua_getmetatable(L, index);
  put(e, lua_gettop(L), depth);
  if (!e->problem) lua_pop(L, 1);
}

/* Writes a library function or table as its name. */
static bool put_name(struct encoder *e, int index) {
  lua_State *L = e->L;
  int type = lua_type(L, index);
  if (type != LUA_TFUNCTION && type != LUA_TTABLE) return false;
  size_t n;
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->iso->refs.names);
  lua_pushvalue(L, index);
  const char *name = lua_rawget(L, -2) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
  if (name) put_bytes(e, NAME, name, n);
  lua_pop(L, 2);
  return name;
}

/* Writes an object that was met before as its number, and the globals as their tag. */
static bool put_known(struct encoder *e, int index) {
  uint32_t id;
  lua_pushvalue(e->L, index);
  if (number(e, &e->scope->objects, &id)) return false;
  if (id == 0) {
    put_tag(e, GLOBALS);
  } else {
    put_tag(e, BACK);
    put_u32(e, id);
  }
  return true;
}

static void put_object(struct encoder *e, int index, int depth) {
  if (depth > DEPTH_MAX) {
    e->problem = "nested too deep";
  } else if (put_name(e, index) || put_known(e, index)) {
    return;
  } else if (lua_type(e->L, index) == LUA_TTABLE) {
    put_table(e, index, depth);
  } else {
    put_function(e, index, depth);
  }
}

static void put_number(struct encoder *e, int index) {
  if (lua_isinteger(e->L, index)) {
    lua_Integer i = lua_tointeger(e->L, index);
    put_tag(e, INT);
    term_put_raw(e->w, &i, sizeof i);
  } else {
    lua_Number d = lua_tonumber(e->L, index);
    put_tag(e, FLOAT);
    term_put_raw(e->w, &d, sizeof d);
  }
}

static void put(struct encoder *e, int index, int depth) {
  lua_State *L = e->L;
  size_t n;
  const char *s;
  luaL_checkstack(L, 8, NULL);
  switch (lua_type(L, index)) {
  case LUA_TNIL: put_tag(e, NIL); return;
  case LUA_TBOOLEAN: put_tag(e, lua_toboolean(L, index) ? TRUE : FALSE); return;
  case LUA_TNUMBER: put_number(e, index); return;
  case LUA_TSTRING:
    s = lua_tolstring(L, index, &n);
    put_bytes(e, STR, s, n);
    return;
  case LUA_TLIGHTUSERDATA: put_pid(e, copy_to_npid(L, index)); return;
  case LUA_TTABLE:
  case LUA_TFUNCTION: put_object(e, index, depth + 1); return;
  default: e->problem = lua_pushfstring(L, "a %s cannot be sent", luaL_typename(L, index));
  }
}

/* Is each upvalue plain, or the globals?  Then the function needs no table of what was met before. */
static bool is_flat(struct encoder *e, int index, int env) {
  lua_State *L = e->L;
  bool flat = lua_isfunction(L, index) && !lua_iscfunction(L, index);
  for (int i = 1; flat && lua_getupvalue(L, index, i); i++) {
    flat = lua_rawequal(L, -1, env) || fn_is_plain(L, lua_gettop(L), e->iso);
    lua_pop(L, 1);
  }
  return flat;
}

/* Remembers the first function of the message; `flag`: the position of its byte that says whether it is
 * referred to. */
static void remember(struct encoder *e, int index, uint32_t count, size_t flag) {
  struct fn_scope *s = e->scope;
  lua_pushvalue(e->L, index);
  lua_rawseti(e->L, LUA_REGISTRYINDEX, e->iso->refs.written);
  s->stage = FN_ONE;
  s->flag = flag;
  s->objects = 1;
  s->cells = count;
}

static void put_flat(struct encoder *e, int index, int env) {
  lua_State *L = e->L;
  uint32_t count = put_body(e, FLAT, index);
  size_t flag = e->w->len;
  put_tag(e, NIL); /* 0: not referred to */
  for (uint32_t i = 1; i <= count && !e->problem; i++) {
    lua_getupvalue(L, index, (int)i);
    if (lua_rawequal(L, -1, env)) {
      put_tag(e, GLOBALS);
    } else if (!put_name(e, lua_gettop(L))) {
      put(e, lua_gettop(L), 0);
    }
    lua_pop(L, 1);
  }
  remember(e, index, count, flag);
}

static void enter_seen(struct encoder *e, uint32_t number) {
  lua_pushinteger(e->L, number);
  lua_rawset(e->L, e->seen);
}

/* Enters the function that was remembered, and its cells, into `seen`. */
static void enter_first(struct encoder *e) {
  lua_State *L = e->L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->iso->refs.written);
  int first = lua_gettop(L);
  lua_pushvalue(L, first);
  enter_seen(e, 1);
  for (uint32_t i = 1; i <= e->scope->cells; i++) {
    lua_pushlightuserdata(L, lua_upvalueid(L, first, (int)i));
    enter_seen(e, i);
  }
  term_set_byte(e->w, e->scope->flag, 1);
  lua_pop(L, 1);
}

enum { EXPECTED = 12 }; /* objects and cells */

/* Pushes `seen`, which is made for the first function that needs it. */
static void push_seen(struct encoder *e, int env) {
  lua_State *L = e->L;
  if (e->scope->stage == FN_MANY) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->iso->refs.written);
    e->seen = lua_gettop(L);
    return;
  }
  lua_createtable(L, 0, EXPECTED);
  e->seen = lua_gettop(L);
  lua_pushvalue(L, env);
  enter_seen(e, 0);
  if (e->scope->stage == FN_ONE) enter_first(e);
  lua_pushvalue(L, e->seen);
  lua_rawseti(L, LUA_REGISTRYINDEX, e->iso->refs.written);
  e->scope->stage = FN_MANY;
}

static void put_head(struct encoder *e) {
  term_put_raw(e->w, FN_MAGIC, MAGIC_LEN);
  term_put_raw(e->w, e->iso->bytecode, BYTECODE_HEADER);
  put_u32(e, e->scope->objects);
  put_u32(e, e->scope->cells);
}

static void put_payload(struct encoder *e, int index, int env) {
  if (put_name(e, index)) return;
  if (e->scope->stage == FN_NONE && is_flat(e, index, env)) {
    put_flat(e, index, env);
  } else {
    push_seen(e, env);
    put(e, index, 0);
  }
}

const char *fn_encode(lua_State *L, int index, struct term_writer *w) {
  struct process *p = process_of(L);
  struct encoder e = {.L = L, .iso = p->isolate, .w = w, .scope = &p->isolate->written};
  luaL_checkstack(L, 8, NULL);
  size_t at = term_open(w, TERM_FN);
  put_head(&e);
  process_push_env(L, p);
  int env = lua_gettop(L);
  put_payload(&e, index, env);
  if (e.problem) return e.problem;
  lua_settop(L, env - 1);
  term_set_count(w, at, (uint32_t)(w->len - at - 4));
  return NULL;
}

void fn_scope_end(lua_State *L, struct fn_scope *s, int ref) {
  if (s->stage != FN_NONE) {
    lua_pushboolean(L, 0);
    lua_rawseti(L, LUA_REGISTRYINDEX, ref);
  }
  *s = (struct fn_scope){0};
}

/* Is the function or table one of the library's, which have names? */
static bool has_name(lua_State *L, int index, const struct isolate *iso) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.names);
  lua_pushvalue(L, index);
  bool named = lua_rawget(L, -2) == LUA_TSTRING;
  lua_pop(L, 2);
  return named;
}

bool fn_is_plain(lua_State *L, int index, struct isolate *iso) {
  int type = lua_type(L, index);
  if (type != LUA_TFUNCTION && type != LUA_TTABLE) return type != LUA_TUSERDATA && type != LUA_TTHREAD;
  return has_name(L, index, iso);
}

bool fn_is_library(lua_State *L, int index) {
  if (!lua_getmetatable(L, index)) return false;
  lua_pop(L, 1);
  return has_name(L, index, process_of(L)->isolate);
}
