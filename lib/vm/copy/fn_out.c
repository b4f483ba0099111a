/* Writes functions.  A Lua table, `seen`, has what was met before in the message:
 *   an object, the address of a cell   its number; of the globals 0
 *   1, 2 …      a list of CHUNK objects, each followed by an integer (struct origin)
 *   -1, -2 …    shards, from FEW objects and cells on: tables that have the numbers of later ones
 * Shards keep each table so short that doubling it does not take long.  The contents of objects are written
 * in the order of their numbers, so the list is also the queue of those that are still to be written.
 *
 * The stack, from base on: the globals, `seen`, the object whose contents are being written, a key, its
 * value.
 *
 * Most messages have one function at most, and that is a FLAT one, which needs no such table.  So the first
 * function is only remembered (FN_ONE); the second one brings it into a table, and marks it in the term as
 * one that is referred to (FN_MANY). */
#include "vm/copy/fn.h"

#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/copy/fn_format.h"
#include "vm/lua/pieces.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <string.h>

struct encoder {
  lua_State *L;
  struct isolate *iso;
  struct term_writer *w;
  struct fn_scope *scope;
  struct fn_writer *f;
  int seen;        /* stack index */
  uint32_t parent; /* the object whose contents are being written, or 0 */
  int work;
  const char *problem;
};

enum { ENV, SEEN, OBJECT, KEY, VALUE_PLACE };

/* --- simple values --- */

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

/* Writes tag, body and count of upvalues, and returns the count. */
static uint32_t put_body(struct encoder *e, enum fn_tag tag, int index) {
  const struct factory *f = factory_of(e->L, e->iso, index, &e->problem);
  if (!f) return 0;
  put_bytes(e, tag, (const char *)f->body, f->len);
  uint8_t count = (uint8_t)f->upvalues;
  term_put_raw(e->w, &count, 1);
  e->work -= (int)(f->len / 256);
  return count;
}

/* --- what was met before --- */

enum { FEW = 4096, SHARDS = 256, EXPECTED = 32 };

/* Where an object was met, so that an error can name the way to it, and where its TABLE is in the term. */
struct origin {
  uint32_t parent, at;
};

static struct origin origin_of(lua_Integer word) {
  return (struct origin){(uint32_t)word, (uint32_t)(word >> 32)};
}

/* Pushes the shard of the key at the top, a table that is made if need be. */
static void push_shard(struct encoder *e) {
  lua_State *L = e->L;
  uint64_t hash = ((uintptr_t)lua_topointer(L, -1) >> 4) * UINT64_C(0x9e3779b97f4a7c15);
  lua_Integer shard = -1 - (lua_Integer)(hash >> 56);
  if (lua_rawgeti(L, e->seen, shard) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawseti(L, e->seen, shard);
}
_Static_assert(SHARDS == 1 << 8, "8 bits of the hash are a shard");

/* Looks for the key at the top in the table at this index. */
static bool find(lua_State *L, int table, uint32_t *out) {
  lua_pushvalue(L, -1);
  bool found = lua_rawget(L, table < 0 ? table - 1 : table) == LUA_TNUMBER;
  if (found) *out = (uint32_t)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return found;
}

/* Gives the key at the top, which `seen` does not have, this number. */
static void enter(struct encoder *e, uint32_t number) {
  lua_State *L = e->L;
  bool many = e->scope->objects + e->scope->cells > FEW;
  if (many) push_shard(e);
  lua_pushvalue(L, many ? -2 : -1);
  lua_pushinteger(L, number);
  lua_rawset(L, many ? -3 : e->seen);
  if (many) lua_pop(L, 1);
}

/* Pops a key, and stores its number in *out.  Returns false when the key was met before; else gives it the
 * next number, and returns true. */
static bool number(struct encoder *e, uint32_t *counter, uint32_t *out) {
  lua_State *L = e->L;
  bool found = find(L, e->seen, out);
  if (!found && e->scope->objects + e->scope->cells >= FEW) {
    push_shard(e);
    lua_insert(L, -2);
    found = find(L, -2, out);
    lua_remove(L, -2);
  }
  if (!found) {
    *out = ++*counter;
    enter(e, *out);
  }
  lua_pop(L, 1);
  return !found;
}

/* Pushes the list that has the object, and returns the place of the object in it. */
static lua_Integer push_chunk(struct encoder *e, uint32_t object) {
  lua_State *L = e->L;
  lua_Integer chunk = (object - 1) / CHUNK + 1;
  if (lua_rawgeti(L, e->seen, chunk) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_createtable(L, object == 1 ? EXPECTED : 2 * CHUNK, 0);
    lua_pushvalue(L, -1);
    lua_rawseti(L, e->seen, chunk);
  }
  return (object - 1) % CHUNK * 2 + 1;
}

/* Enters the object at index, which is about to be written, into the queue. */
static void queue(struct encoder *e, int index, uint32_t object) {
  lua_State *L = e->L;
  lua_Integer place = push_chunk(e, object);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, place);
  lua_pushinteger(L, (lua_Integer)e->w->len << 32 | e->parent);
  lua_rawseti(L, -2, place + 1);
  lua_pop(L, 1);
}

/* Pushes the object. */
static struct origin push_object(struct encoder *e, uint32_t object) {
  lua_State *L = e->L;
  lua_Integer place = push_chunk(e, object);
  lua_rawgeti(L, -1, place + 1);
  struct origin o = origin_of(lua_tointeger(L, -1));
  lua_pop(L, 1);
  lua_rawgeti(L, -1, place);
  lua_remove(L, -2);
  return o;
}

/* --- a flat function --- */

/* Is each upvalue plain, or the globals?  Then the function needs no table of what was met before. */
static bool is_flat(struct encoder *e, int index, int env) {
  lua_State *L = e->L;
  size_t bytes = 0; /* of its strings */
  bool flat = lua_isfunction(L, index) && !lua_iscfunction(L, index);
  for (int i = 1; flat && lua_getupvalue(L, index, i); i++) {
    if (lua_type(L, -1) == LUA_TSTRING) bytes += lua_rawlen(L, -1);
    flat = bytes <= PIECE && (lua_rawequal(L, -1, env) || fn_is_plain(L, lua_gettop(L), e->iso));
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

static void put_plain(struct encoder *e, int index) {
  size_t n;
  const char *s;
  switch (lua_type(e->L, index)) {
  case LUA_TNIL: put_tag(e, NIL); return;
  case LUA_TBOOLEAN: put_tag(e, lua_toboolean(e->L, index) ? TRUE : FALSE); return;
  case LUA_TNUMBER: put_number(e, index); return;
  case LUA_TSTRING:
    s = lua_tolstring(e->L, index, &n);
    put_bytes(e, STR, s, n);
    e->work -= (int)(n / 64);
    return;
  default: put_pid(e, copy_to_npid(e->L, index)); /* light userdata */
  }
}

static void put_flat(struct encoder *e, int index, int env) {
  lua_State *L = e->L;
  uint32_t count = put_body(e, FLAT, index);
  size_t flag = e->w->len;
  put_tag(e, NIL); /* 0: not referred to */
  for (uint32_t i = 1; i <= count; i++) {
    lua_getupvalue(L, index, (int)i);
    if (lua_rawequal(L, -1, env)) {
      put_tag(e, GLOBALS);
    } else if (!put_name(e, lua_gettop(L))) {
      put_plain(e, lua_gettop(L));
    }
    lua_pop(L, 1);
  }
  if (!e->problem) remember(e, index, count, flag);
}

static void put_head(struct encoder *e) {
  term_put_raw(e->w, FN_MAGIC, MAGIC_LEN);
  term_put_raw(e->w, e->iso->bytecode, BYTECODE_HEADER);
  put_u32(e, e->scope->objects);
  put_u32(e, e->scope->cells);
}

static struct encoder encoder_of(lua_State *L, struct term_writer *w) {
  struct isolate *iso = process_of(L)->isolate;
  return (struct encoder){.L = L, .iso = iso, .w = w, .scope = &iso->written};
}

static size_t open_fn(struct encoder *e) {
  size_t at = term_open(e->w, TERM_FN);
  put_head(e);
  return at;
}

static void close_fn(struct encoder *e, size_t at) {
  term_set_count(e->w, at, (uint32_t)(e->w->len - at - 4));
}

bool fn_write_flat(lua_State *L, int index, struct term_writer *w) {
  struct encoder e = encoder_of(L, w);
  luaL_checkstack(L, 8, NULL);
  process_push_env(L, process_of(L));
  int env = lua_gettop(L);
  size_t start = w->len, at = open_fn(&e);
  bool flat = put_name(&e, index);
  if (!flat && e.scope->stage == FN_NONE && is_flat(&e, index, env)) {
    put_flat(&e, index, env);
    flat = !e.problem;
  }
  lua_settop(L, env - 1);
  if (flat) {
    close_fn(&e, at);
  } else if (!w->failed) {
    w->len = start;
  }
  return flat;
}

/* --- objects --- */

/* Enters the function that was remembered, and its cells, into `seen`. */
static void enter_first(struct encoder *e) {
  lua_State *L = e->L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->iso->refs.written);
  int first = lua_gettop(L);
  enter(e, 1);
  for (uint32_t i = 1; i <= e->scope->cells; i++) {
    lua_pushlightuserdata(L, lua_upvalueid(L, first, (int)i));
    enter(e, i);
    lua_pop(L, 1);
  }
  term_set_byte(e->w, e->scope->flag, 1);
  lua_pop(L, 1);
}

/* Pushes `seen`, which is made for the first function that needs it, onto the globals. */
static void push_seen(struct encoder *e) {
  lua_State *L = e->L;
  e->seen = lua_gettop(L) + 1;
  if (e->scope->stage == FN_MANY) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->iso->refs.written);
    return;
  }
  lua_createtable(L, 1, EXPECTED);
  lua_pushvalue(L, -2);
  enter(e, 0);
  lua_pop(L, 1);
  if (e->scope->stage == FN_ONE) enter_first(e);
  lua_pushvalue(L, e->seen);
  lua_rawseti(L, LUA_REGISTRYINDEX, e->iso->refs.written);
  e->scope->stage = FN_MANY;
}

/* Has the metatable of the table at index a finalizer, which the receiver would refuse? */
static bool has_finalizer(lua_State *L, int index) {
  if (!lua_getmetatable(L, index)) return false;
  lua_pushliteral(L, "__gc");
  bool has = lua_rawget(L, -2) != LUA_TNIL;
  lua_pop(L, 2);
  return has;
}

static void put_new(struct encoder *e, int index, uint32_t id) {
  queue(e, index, id);
  if (lua_type(e->L, index) == LUA_TFUNCTION) {
    if (lua_iscfunction(e->L, index))
      e->problem = "a C function cannot be sent";
    else
      put_body(e, FUNCTION, index);
  } else if (has_finalizer(e->L, index)) {
    e->problem = "a table with a __gc metamethod cannot be sent";
  } else {
    put_tag(e, TABLE);
    put_u32(e, 0);
    put_u32(e, 0);
  }
}

static void put_object(struct encoder *e, int index) {
  uint32_t id;
  if (put_name(e, index)) return;
  lua_pushvalue(e->L, index);
  if (number(e, &e->scope->objects, &id)) {
    put_new(e, index, id);
  } else if (id == 0) {
    put_tag(e, GLOBALS);
  } else {
    put_tag(e, BACK);
    put_u32(e, id);
  }
}

/* Writes a value, as far as to the length of a long string, which it pushes: then it returns false. */
static bool put(struct encoder *e, int index) {
  lua_State *L = e->L;
  e->work--;
  switch (lua_type(L, index)) {
  case LUA_TTABLE:
  case LUA_TFUNCTION: put_object(e, index); return true;
  case LUA_TUSERDATA:
  case LUA_TTHREAD:
    e->problem = lua_pushfstring(L, "a %s cannot be sent", luaL_typename(L, index));
    return true;
  case LUA_TSTRING:
    if (lua_rawlen(L, index) <= PIECE) break;
    put_tag(e, STR);
    put_u32(e, (uint32_t)lua_rawlen(L, index));
    lua_pushvalue(L, index);
    return false;
  }
  put_plain(e, index);
  return true;
}

/* --- contents --- */

enum stage { ROOT, NEXT, PAIRS, VALUE, META, UPVALUES };

static int place(const struct encoder *e, int offset) {
  return e->f->base + offset;
}

static int count_upvalues(lua_State *L, int index) {
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  return ar.nups;
}

/* Begins with the contents of the next object; false: there is none. */
static bool begin_object(struct encoder *e) {
  lua_State *L = e->L;
  struct fn_writer *f = e->f;
  if (f->next > e->scope->objects) return false;
  lua_settop(L, place(e, SEEN));
  push_object(e, f->next);
  if (lua_type(L, -1) == LUA_TFUNCTION) {
    f->stage = UPVALUES;
    f->i = 0;
    f->count = count_upvalues(L, place(e, OBJECT));
  } else {
    f->stage = PAIRS;
    f->array = f->pairs = 0;
    f->border = lua_rawlen(L, -1);
    lua_pushnil(L);
  }
  return true;
}

static void count_key(struct encoder *e) {
  struct fn_writer *f = e->f;
  int key = place(e, KEY);
  f->pairs++;
  if (!lua_isinteger(e->L, key)) return;
  lua_Integer i = lua_tointeger(e->L, key);
  if (i >= 1 && (lua_Unsigned)i <= f->border) f->array++;
}

/* Writes how long the parts of the table are: its list is an array if it is at least half full, as in a
 * message (copy_out.c). */
static void put_sizes(struct encoder *e) {
  const struct fn_writer *f = e->f;
  bool list = f->array >= f->border - f->array;
  struct origin o = push_object(e, f->next);
  lua_pop(e->L, 1);
  term_set_count(e->w, o.at + 1, list ? (uint32_t)f->border : 0);
  term_set_count(e->w, o.at + 5, f->pairs - (list ? f->array : 0));
}

static void end_object(struct encoder *e) {
  e->f->stage = NEXT;
  e->f->next++;
}

static bool put_key(struct encoder *e) {
  lua_State *L = e->L;
  lua_settop(L, place(e, KEY));
  if (!lua_next(L, place(e, OBJECT))) {
    put_sizes(e);
    put_tag(e, NIL);
    e->f->stage = META;
    return true;
  }
  count_key(e);
  e->f->stage = VALUE;
  return put(e, place(e, KEY));
}

static void put_meta(struct encoder *e) {
  end_object(e);
  if (lua_getmetatable(e->L, place(e, OBJECT)))
    put(e, lua_gettop(e->L));
  else
    put_tag(e, NIL);
}

static bool put_upvalue(struct encoder *e) {
  lua_State *L = e->L;
  struct fn_writer *f = e->f;
  uint32_t cell;
  lua_settop(L, place(e, OBJECT));
  if (f->i == f->count) {
    end_object(e);
    return true;
  }
  lua_pushlightuserdata(L, lua_upvalueid(L, place(e, OBJECT), ++f->i));
  bool fresh = number(e, &e->scope->cells, &cell);
  put_u32(e, cell);
  e->work--;
  if (!fresh) return true;
  lua_getupvalue(L, place(e, OBJECT), f->i);
  return put(e, lua_gettop(L));
}

/* --- errors --- */

/* The name of the upvalue of the function at index that is the value at the top; NULL: there is none. */
static const char *name_of(lua_State *L, int index) {
  const char *name;
  for (int i = 1; (name = lua_getupvalue(L, index, i)); i++) {
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    if (same) break;
  }
  return name;
}

/* Puts the function at index, and its upvalue, before the reason at the top. */
static void add_function(lua_State *L, int index, const char *upvalue) {
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">S", &ar);
  lua_pushfstring(L, "the function at %s:%d cannot be sent: '%s': %s", ar.short_src, ar.linedefined, upvalue,
                  lua_tostring(L, -1));
  lua_remove(L, -2);
}

enum { SHOWN = 15, WAY_MAX = 1000 };

/* Pushes the reason, behind the functions that lead to the value that cannot be sent; of a long way the last
 * ones.  `upvalue` is its name in the object whose contents are being written, or NULL. */
static void push_reason(struct encoder *e, const char *upvalue) {
  lua_State *L = e->L;
  int shown = 0;
  luaL_checkstack(L, 12, NULL);
  lua_pushstring(L, e->problem);
  uint32_t id = e->parent;
  for (int n = 0; id && n < WAY_MAX && shown < SHOWN; n++) {
    struct origin o = push_object(e, id); /* reason, object */
    if (upvalue && *upvalue) {
      lua_insert(L, -2);
      add_function(L, lua_gettop(L) - 1, upvalue);
      lua_insert(L, -2);
      shown++;
    }
    upvalue = NULL;
    if (o.parent) {
      push_object(e, o.parent); /* reason, object, parent */
      lua_insert(L, -2);
      if (lua_type(L, -2) == LUA_TFUNCTION) upvalue = name_of(L, lua_gettop(L) - 1);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
    id = o.parent;
  }
}

static enum fn_step refuse(struct encoder *e) {
  lua_State *L = e->L;
  bool function = e->parent && lua_type(L, place(e, OBJECT)) == LUA_TFUNCTION;
  const char *name = function ? lua_getupvalue(L, place(e, OBJECT), e->f->i) : NULL;
  push_reason(e, name);
  return FN_REFUSED;
}

/* --- steps --- */

void fn_write_begin(lua_State *L, struct fn_writer *f, int index, struct term_writer *w) {
  struct encoder e = encoder_of(L, w);
  luaL_checkstack(L, 20, NULL);
  *f = (struct fn_writer){.w = w, .base = lua_gettop(L) + 1, .stage = ROOT};
  f->at = open_fn(&e);
  process_push_env(L, process_of(L));
  push_seen(&e);
  f->next = e.scope->objects + 1;
  lua_pushvalue(L, index);
}

/* Writes some; false: as far as to a long string. */
static bool write_some(struct encoder *e) {
  struct fn_writer *f = e->f;
  switch ((enum stage)f->stage) {
  case ROOT: f->stage = NEXT; return put(e, place(e, OBJECT));
  case PAIRS: return put_key(e);
  case VALUE: f->stage = PAIRS; return put(e, place(e, VALUE_PLACE));
  case META: put_meta(e); return true;
  case UPVALUES: return put_upvalue(e);
  case NEXT: return true;
  }
  return true;
}

enum fn_step fn_write_on(lua_State *L, struct fn_writer *f, int *work) {
  struct encoder e = encoder_of(L, f->w);
  e.f = f;
  e.seen = f->base + SEEN;
  e.work = *work;
  enum fn_step step = FN_GOES_ON;
  while (step == FN_GOES_ON && e.work > 0 && !e.w->failed) {
    if (f->stage == NEXT && !begin_object(&e)) {
      close_fn(&e, f->at);
      lua_settop(L, f->base - 1);
      step = FN_DONE;
      break;
    }
    e.parent = f->stage == ROOT ? 0 : f->next;
    if (!write_some(&e)) step = FN_TEXT;
    if (e.problem) step = refuse(&e);
  }
  *work = e.work;
  return step;
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
