/* A value of the payload is one tag byte and
 *   NIL FALSE TRUE GLOBALS   nothing        INT FLOAT   8 bytes       STR NAME   u32 length, bytes
 *   PID       the 8 bytes of its number (bit 63: a reference), u32 creation, u32 length of the node's name,
 * bytes TABLE     u8 has a metatable, pairs up to a NIL key, then the metatable FUNCTION  u32 length, body
 * (bytecode.h), u8 count of upvalues, each: u32 cell, and for a new cell its value BACK      u32 number of a
 * table or function met before Tables and functions are numbered from 1 as they begin, and so are cells: two
 * upvalues with the same cell share one variable.  Numbers are in host order: the bytecode header, checked
 * first, tells the order of bytes. */
#include "vm/fn.h"

#include "vm/bytecode.h"
#include "vm/copy.h"
#include "vm/factory.h"
#include "vm/process.h"
#include "vm/state.h"

#include <lauxlib.h>
#include <string.h>

enum fn_tag { NIL, FALSE, TRUE, INT, FLOAT, STR, PID, TABLE, FUNCTION, BACK, NAME, GLOBALS };

enum { MAGIC_LEN = 3, HEAD_LEN = MAGIC_LEN + BYTECODE_HEADER, DEPTH_MAX = 180 };
static const char magic[] = "FN1";
#define REF_BIT (UINT64_C(1) << 63)

/* --- out --- */

struct encoder {
  lua_State *L;
  struct isolate *iso;
  struct term_writer *w;
  int seen; /* stack index: object or cell -> its number, globals -> 0 */
  uint32_t objects, cells;
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
  const struct nodetab *nodes = e->iso->vm->config.nodes;
  uint32_t incarnation = npid_incarnation(p), creation = nodetab_creation(nodes, incarnation);
  uint64_t number = npid_number(p) | (npid_is_ref(p) ? REF_BIT : 0);
  const char *name = nodetab_name(nodes, incarnation);
  put_tag(e, PID);
  term_put_raw(e->w, &number, sizeof number);
  put_u32(e, creation);
  put_u32(e, (uint32_t)strlen(name));
  term_put_raw(e->w, name, strlen(name));
}

struct body_writer {
  struct term_writer *w;
  size_t skip; /* bytes of the dump before the body that are still to come */
};

static int write_body(lua_State *L, const void *bytes, size_t n, void *data) {
  (void)L;
  struct body_writer *b = data;
  size_t skipped = n < b->skip ? n : b->skip;
  b->skip -= skipped;
  term_put_raw(b->w, (const char *)bytes + skipped, n - skipped);
  return b->w->failed;
}

/* Appends the body of the function at index. */
static void dump_body(lua_State *L, int index, struct term_writer *w) {
  struct body_writer b = {w, BYTECODE_HEADER + 1};
  lua_pushvalue(L, index);
  lua_dump(L, write_body, &b, 0);
  lua_pop(L, 1);
}

/* The number that seen[key at the top] has, popping the key; or, when it has none, gives it the next. */
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

static void put_upvalue(struct encoder *e, int index, int i, int depth) {
  lua_State *L = e->L;
  uint32_t cell;
  lua_pushlightuserdata(L, lua_upvalueid(L, index, i));
  bool fresh = number(e, &e->cells, &cell);
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
  put_tag(e, FUNCTION);
  size_t at = e->w->len;
  put_u32(e, 0);
  dump_body(L, index, e->w);
  term_set_count(e->w, at, (uint32_t)(e->w->len - at - 4));
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  uint8_t count = ar.nups;
  term_put_raw(e->w, &count, 1);
  for (int i = 1; i <= count && !e->problem; i++) put_upvalue(e, index, i, depth);
}

static void put_table(struct encoder *e, int index, int depth) {
  lua_State *L = e->L;
  put_tag(e, TABLE);
  uint8_t has_meta = lua_getmetatable(L, index) ? 1 : 0;
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

/* A library function or table by name; one that was met before, or the globals, by number. */
static bool put_known(struct encoder *e, int index) {
  lua_State *L = e->L;
  size_t n;
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->iso->refs.names);
  lua_pushvalue(L, index);
  if (lua_rawget(L, -2) == LUA_TSTRING) {
    const char *name = lua_tolstring(L, -1, &n);
    put_bytes(e, NAME, name, n);
    lua_pop(L, 2);
    return true;
  }
  lua_pop(L, 2);
  uint32_t id;
  lua_pushvalue(L, index);
  if (number(e, &e->objects, &id)) return false;
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
  } else if (put_known(e, index)) {
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

const char *fn_encode(lua_State *L, int index, struct term_writer *w) {
  struct process *p = process_of(L);
  struct encoder e = {.L = L, .iso = p->isolate, .w = w};
  luaL_checkstack(L, 8, NULL);
  size_t at = term_open(w, TERM_FN);
  lua_newtable(L);
  e.seen = lua_gettop(L);
  process_push_env(L, p);
  lua_pushinteger(L, 0);
  lua_rawset(L, e.seen);
  term_put_raw(w, magic, MAGIC_LEN);
  term_put_raw(w, e.iso->bytecode, BYTECODE_HEADER);
  put(&e, index, 0);
  if (e.problem) return e.problem;
  lua_settop(L, e.seen - 1);
  term_set_count(w, at, (uint32_t)(w->len - at - 4));
  return NULL;
}

bool fn_is_library(lua_State *L, int index) {
  if (!lua_getmetatable(L, index)) return false;
  lua_pop(L, 1);
  struct process *p = process_of(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, p->isolate->refs.names);
  lua_pushvalue(L, index);
  bool named = lua_rawget(L, -2) == LUA_TSTRING;
  lua_pop(L, 2);
  return named;
}

/* --- in --- */

struct decoder {
  lua_State *L;
  struct process *p;
  const char *at, *end;
  int objects; /* stack index: number -> object, -cell -> object * 256 + upvalue */
  uint32_t n, cells;
};

static void get(struct decoder *d, int depth);

static const char *get_raw(struct decoder *d, size_t n) {
  if (n > (size_t)(d->end - d->at)) luaL_error(d->L, "a function is damaged");
  d->at += n;
  return d->at - n;
}

static uint8_t get_u8(struct decoder *d) {
  return (uint8_t)*get_raw(d, 1);
}

static uint32_t get_u32(struct decoder *d) {
  uint32_t n;
  memcpy(&n, get_raw(d, sizeof n), sizeof n);
  return n;
}

static void get_str(struct decoder *d) {
  uint32_t n = get_u32(d);
  lua_pushlstring(d->L, get_raw(d, n), n);
}

static void get_pid(struct decoder *d) {
  uint64_t number;
  uint32_t creation, incarnation;
  char name[NODENAME_SIZE];
  memcpy(&number, get_raw(d, sizeof number), sizeof number);
  creation = get_u32(d);
  uint32_t n = get_u32(d);
  if (n >= sizeof name) luaL_error(d->L, "a function is damaged");
  memcpy(name, get_raw(d, n), n);
  name[n] = '\0';
  if (nodetab_intern(d->p->isolate->vm->config.nodes, name, creation, &incarnation))
    luaL_error(d->L, "too many nodes are known");
  npid pid = npid_make(incarnation, number & NPID_NUMBER_MAX);
  copy_push_npid(d->L, number & REF_BIT ? npid_as_ref(pid) : pid);
}

static void get_name(struct decoder *d) {
  lua_State *L = d->L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, d->p->isolate->refs.values);
  get_str(d);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TNIL) luaL_error(L, "this node has no '%s'", lua_tostring(L, -2));
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* The object at the top gets the next number. */
static uint32_t enter(struct decoder *d) {
  lua_pushvalue(d->L, -1);
  lua_rawseti(d->L, d->objects, ++d->n);
  return d->n;
}

static void get_meta(struct decoder *d, int depth) {
  lua_State *L = d->L;
  get(d, depth);
  if (!lua_istable(L, -1)) luaL_error(L, "a function is damaged");
  lua_pushliteral(L, "__gc");
  if (lua_rawget(L, -2) != LUA_TNIL) luaL_error(L, "a table with a __gc metamethod cannot be sent");
  lua_pop(L, 1);
  lua_setmetatable(L, -2);
}

static void get_table(struct decoder *d, int depth) {
  lua_State *L = d->L;
  lua_newtable(L);
  enter(d);
  bool has_meta = get_u8(d);
  for (;;) {
    get(d, depth);
    if (lua_isnil(L, -1)) break;
    get(d, depth);
    lua_rawset(L, -3); /* a NaN key, which only a damaged payload has, raises */
  }
  lua_pop(L, 1);
  if (has_meta) get_meta(d, depth);
}

/* Upvalue i of the function at the top becomes the same variable as the cell's first owner's. */
static void join(struct decoder *d, int i, uint32_t cell) {
  lua_State *L = d->L;
  lua_rawgeti(L, d->objects, -(lua_Integer)cell);
  lua_Integer owner = lua_tointeger(L, -1);
  lua_rawgeti(L, d->objects, owner >> 8);
  lua_upvaluejoin(L, -3, i, -1, (int)(owner & 255));
  lua_pop(L, 2);
}

static void get_upvalue(struct decoder *d, uint32_t id, int i, int depth) {
  lua_State *L = d->L;
  uint32_t cell = get_u32(d);
  if (cell == 0 || cell > d->cells + 1) luaL_error(L, "a function is damaged");
  if (cell <= d->cells) {
    join(d, i, cell);
    return;
  }
  d->cells = cell;
  lua_pushinteger(L, (lua_Integer)id << 8 | i);
  lua_rawseti(L, d->objects, -(lua_Integer)cell);
  get(d, depth);
  lua_setupvalue(L, -2, i);
}

static void get_function(struct decoder *d, int depth) {
  uint32_t len = get_u32(d), upvalues = 0;
  const char *body = get_raw(d, len);
  const char *problem = factory_instance(d->L, d->p->isolate, (const uint8_t *)body, len, &upvalues);
  if (problem) luaL_error(d->L, "%s", problem);
  if (get_u8(d) != upvalues) luaL_error(d->L, "a function is damaged");
  uint32_t id = enter(d);
  for (uint32_t i = 1; i <= upvalues; i++) get_upvalue(d, id, (int)i, depth);
}

static void get_number(struct decoder *d, enum fn_tag tag) {
  union {
    lua_Integer i;
    lua_Number d;
  } v;
  memcpy(&v, get_raw(d, sizeof v), sizeof v);
  if (tag == INT) {
    lua_pushinteger(d->L, v.i);
  } else {
    lua_pushnumber(d->L, v.d);
  }
}

static void get(struct decoder *d, int depth) {
  lua_State *L = d->L;
  luaL_checkstack(L, 8, NULL);
  if (depth > 4 * DEPTH_MAX) luaL_error(L, "a function is nested too deep");
  uint8_t tag = get_u8(d);
  switch (tag) {
  case NIL: lua_pushnil(L); return;
  case FALSE:
  case TRUE: lua_pushboolean(L, tag == TRUE); return;
  case INT:
  case FLOAT: get_number(d, tag); return;
  case STR: get_str(d); return;
  case PID: get_pid(d); return;
  case TABLE: get_table(d, depth + 1); return;
  case FUNCTION: get_function(d, depth + 1); return;
  case BACK:
    lua_rawgeti(L, d->objects, get_u32(d));
    if (lua_isnil(L, -1)) luaL_error(L, "a function is damaged");
    return;
  case NAME: get_name(d); return;
  case GLOBALS: process_push_env(L, d->p); return;
  default: luaL_error(L, "a function is damaged");
  }
}

void fn_decode(lua_State *L, const char *payload, size_t len) {
  struct process *p = process_of(L);
  struct decoder d = {.L = L, .p = p, .at = payload, .end = payload + len};
  luaL_checkstack(L, 8, NULL);
  if (len < HEAD_LEN || memcmp(payload, magic, MAGIC_LEN) != 0) luaL_error(L, "a function is damaged");
  d.at += HEAD_LEN;
  if (memcmp(payload + MAGIC_LEN, p->isolate->bytecode, BYTECODE_HEADER) != 0)
    luaL_error(L, "a function was made by another Lua than this node's (%s)", LUA_RELEASE);
  lua_newtable(L);
  d.objects = lua_gettop(L);
  get(&d, 0);
  if (d.at != d.end) luaL_error(L, "a function is damaged");
  lua_replace(L, d.objects);
}

/* --- within an isolate --- */

static bool is_plain(lua_State *L, int index, struct isolate *iso) {
  int type = lua_type(L, index);
  if (type != LUA_TFUNCTION && type != LUA_TTABLE) return type != LUA_TUSERDATA && type != LUA_TTHREAD;
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.names);
  lua_pushvalue(L, index);
  bool named = lua_rawget(L, -2) == LUA_TSTRING;
  lua_pop(L, 2);
  return named;
}

static int count_upvalues(lua_State *L, int index) {
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  return ar.nups;
}

bool fn_clone(lua_State *L, int index) {
  struct process *p = process_of(L);
  struct isolate *iso = p->isolate;
  int top = lua_gettop(L), count = count_upvalues(L, index);
  uint32_t upvalues = 0;
  luaL_checkstack(L, count + 8, NULL);
  process_push_env(L, p);
  bool plain = !lua_iscfunction(L, index);
  for (int i = 1; i <= count && plain; i++) {
    lua_getupvalue(L, index, i);
    plain = lua_rawequal(L, -1, top + 1) || is_plain(L, lua_gettop(L), iso);
  }
  if (!plain) {
    lua_settop(L, top);
    return false;
  }
  term_writer_clear(&iso->writer);
  dump_body(L, index, &iso->writer);
  const char *problem = iso->writer.failed
                            ? "out of memory"
                            : factory_instance(L, iso, iso->writer.data, iso->writer.len, &upvalues);
  if (problem) luaL_error(L, "%s", problem);
  lua_replace(L, top + 1); /* in the place of the globals, below the values of its upvalues */
  for (int i = (int)upvalues; i >= 1; i--) lua_setupvalue(L, top + 1, i);
  return true;
}

void fn_set_globals(lua_State *L, int function, int from, int to) {
  for (int i = 1; lua_getupvalue(L, function, i); i++) {
    if (lua_rawequal(L, -1, from)) {
      lua_pushvalue(L, to);
      lua_setupvalue(L, function, i);
    }
    lua_pop(L, 1);
  }
}
