/* Decodes functions.  The bytes may come from any peer: each length, number and tag is checked before it is
 * used. */
#include "vm/copy/fn.h"

#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/copy/fn_format.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <string.h>

struct decoder {
  lua_State *L;
  struct process *p;
  struct fn_scope *scope;
  const char *at, *end;
  bool begun;  /* the function itself, not one that it reaches, has been made */
  int objects; /* stack index: number -> object, -cell -> object * 256 + upvalue */
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
  struct nodename parsed;
  if (nodename_parse(name, &parsed, NULL) || parsed.port) luaL_error(d->L, "a function is damaged");
  int rc = nodetab_intern(d->p->isolate->config->nodes, parsed.full, creation, &incarnation);
  if (rc == ERR_BUSY) incarnation = NODETAB_NOWHERE;
  if (rc && rc != ERR_BUSY) luaL_error(d->L, "%s", err_sentence(rc));
  npid pid = npid_make(incarnation, number & NPID_NUMBER_MAX);
  copy_push_npid(d->L, number & REF_BIT ? npid_as_ref(pid) : pid);
}

static void get_name(struct decoder *d) {
  lua_State *L = d->L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, d->p->isolate->refs.values);
  get_str(d);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TNIL) {
    lua_pop(L, 1);
    d->p->isolate->hooks->library(L, lua_tostring(L, -1));
  }
  if (lua_isnil(L, -1)) luaL_error(L, "this node has no '%s'", lua_tostring(L, -2));
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* Gives the next number to the object at the top. */
static uint32_t enter(struct decoder *d) {
  lua_pushvalue(d->L, -1);
  lua_rawseti(d->L, d->objects, ++d->scope->objects);
  return d->scope->objects;
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

/* Raises for a reference to something that was not decoded. */
static int missing(struct decoder *d) {
  return luaL_error(d->L, "a function shares variables with another value of its message, which is missing");
}

/* Makes upvalue i of the function at the top the same variable as the upvalue that had the cell first. */
static void join(struct decoder *d, int i, uint32_t cell) {
  lua_State *L = d->L;
  if (lua_rawgeti(L, d->objects, -(lua_Integer)cell) != LUA_TNUMBER) missing(d);
  lua_Integer owner = lua_tointeger(L, -1);
  lua_rawgeti(L, d->objects, owner >> 8);
  lua_upvaluejoin(L, -3, i, -1, (int)(owner & 255));
  lua_pop(L, 2);
}

/* Gives the next number to the cell of upvalue i of function `id`. */
static void new_cell(struct decoder *d, uint32_t id, int i) {
  lua_pushinteger(d->L, (lua_Integer)id << 8 | i);
  lua_rawseti(d->L, d->objects, -(lua_Integer)++d->scope->cells);
}

static void get_upvalue(struct decoder *d, uint32_t id, int i, int depth) {
  lua_State *L = d->L;
  uint32_t cell = get_u32(d), cells = d->scope->cells;
  if (cell == 0 || cell > cells + 1) luaL_error(L, "a function is damaged");
  if (cell <= cells) {
    join(d, i, cell);
    return;
  }
  new_cell(d, id, i);
  get(d, depth);
  lua_setupvalue(L, -2, i);
}

/* Pushes an instance; returns how many upvalues it has. */
static uint32_t get_body(struct decoder *d) {
  uint32_t len = get_u32(d);
  const char *body = get_raw(d, len), *problem;
  struct factory *f = factory_find(d->L, d->p->isolate, body, len, &problem);
  if (!f) return (uint32_t)luaL_error(d->L, "%s", problem);
  if (get_u8(d) != f->upvalues) luaL_error(d->L, "a function is damaged");
  factory_push(d->L, f);
  if (!d->begun) d->p->isolate->decoded = f;
  d->begun = true;
  return f->upvalues;
}

static void push_objects(struct decoder *d);

/* Numbers the function at the top and its cells; they are entered only if something refers to them. */
static void number_flat(struct decoder *d, uint32_t upvalues) {
  if (!get_u8(d)) {
    d->scope->objects++;
    d->scope->cells += upvalues;
    return;
  }
  int objects = d->objects;
  push_objects(d);
  d->objects = lua_gettop(d->L);
  lua_pushvalue(d->L, -2);
  uint32_t id = enter(d);
  for (uint32_t i = 1; i <= upvalues; i++) new_cell(d, id, (int)i);
  lua_pop(d->L, 2);
  d->objects = objects;
}

static void get_flat(struct decoder *d, int depth) {
  uint32_t upvalues = get_body(d);
  number_flat(d, upvalues);
  for (uint32_t i = 1; i <= upvalues; i++) {
    uint8_t tag = d->at < d->end ? (uint8_t)*d->at : NIL;
    if (tag == TABLE || tag == FUNCTION || tag == FLAT || tag == BACK)
      luaL_error(d->L, "a function is damaged");
    get(d, depth);
    lua_setupvalue(d->L, -2, (int)i);
  }
}

static void get_function(struct decoder *d, int depth) {
  uint32_t upvalues = get_body(d), id = enter(d);
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
  case FLAT: get_flat(d, depth + 1); return;
  case BACK:
    lua_rawgeti(L, d->objects, get_u32(d));
    if (lua_isnil(L, -1)) missing(d);
    return;
  case NAME: get_name(d); return;
  case GLOBALS: process_push_env(L, d->p); return;
  default: luaL_error(L, "a function is damaged");
  }
}

enum { EXPECTED = 8 }; /* cells */

/* Pushes the table of the objects of this message, which is made for the first function that needs it. */
static void push_objects(struct decoder *d) {
  lua_State *L = d->L;
  int ref = d->p->isolate->refs.read;
  if (d->scope->stage == FN_MANY) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    return;
  }
  lua_createtable(L, 4, EXPECTED);
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, ref);
  d->scope->stage = FN_MANY;
}

/* Reads how many objects and cells come before this function in its message.  When these were not decoded,
 * since the function comes alone or another one before it could not be made, it is read by itself. */
static void continue_scope(struct decoder *d) {
  struct fn_scope *s = d->scope;
  uint32_t objects = get_u32(d), cells = get_u32(d);
  if (objects > TERM_SIZE_MAX || cells > TERM_SIZE_MAX) luaL_error(d->L, "a function is damaged");
  bool goes_on = objects && s->reader == d->p->pid && s->objects == objects && s->cells == cells;
  if (goes_on) return;
  fn_scope_end(d->L, s, d->p->isolate->refs.read);
  s->reader = d->p->pid;
  s->objects = objects;
  s->cells = cells;
}

static void get_payload(struct decoder *d) {
  lua_State *L = d->L;
  uint8_t tag = d->at < d->end ? (uint8_t)*d->at : NIL;
  bool graph = tag != FLAT && tag != NAME;
  if (graph) {
    push_objects(d);
    d->objects = lua_gettop(L);
  }
  get(d, 0);
  if (d->at != d->end) luaL_error(L, "a function is damaged");
  if (graph) lua_remove(L, -2);
}

void fn_decode(lua_State *L, const char *payload, size_t len) {
  struct process *p = process_of(L);
  struct decoder d = {.L = L, .p = p, .scope = &p->isolate->read, .at = payload, .end = payload + len};
  p->isolate->decoded = NULL;
  luaL_checkstack(L, 8, NULL);
  if (len < HEAD_LEN || memcmp(payload, FN_MAGIC, MAGIC_LEN) != 0) luaL_error(L, "a function is damaged");
  d.at += MAGIC_LEN + BYTECODE_HEADER;
  if (memcmp(payload + MAGIC_LEN, p->isolate->bytecode, BYTECODE_HEADER) != 0)
    luaL_error(L, "a function was made by another Lua than this node's (%s)", LUA_RELEASE);
  continue_scope(&d);
  get_payload(&d);
}
