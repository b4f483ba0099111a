/* Reads functions.  The bytes may come from any peer: each length, number and tag is checked before it is
 * used.
 *
 * A Lua table has the objects and cells of the message (refs.read):
 *   i = 1, 2 …   a list of CHUNK objects
 *   -1, -2 …     a list of CHUNK cells: object * 256 + upvalue, for the upvalue that had the cell first
 * A number without an entry belongs to a value that was not decoded.
 *
 * The stack, from base on: the function, that table, the object whose contents are being read, a key, its
 * value. */
#include "vm/copy/fn.h"

#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/copy/fn_format.h"
#include "vm/lua/pieces.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <string.h>

struct decoder {
  lua_State *L;
  struct process *p;
  struct isolate *iso;
  struct fn_scope *scope;
  struct fn_reader *f;
  int work;
};

/* What comes next: the function, an object, or of an object a key, its value, the metatable, a cell, the
 * value of a new cell. */
enum stage { ROOT, NEXT, KEYS, VALUES, META, UPVALUES, UPVALUE };

enum { ROOT_PLACE, OBJECTS, OBJECT, KEY };
enum { TEXT_COST = 64, CODE_COST = 16 }; /* bytes that take as long as a value */

static const char damaged[] = "a function is damaged";
static const char missing[] =
    "a function shares variables with another value of its message, which is missing";

static bool fail(struct decoder *d, const char *problem) {
  d->f->problem = problem;
  return false;
}

static int place(const struct decoder *d, int offset) {
  return d->f->base + offset;
}

/* --- bytes --- */

/* NULL: there are not so many bytes. */
static const char *get_raw(struct decoder *d, size_t n) {
  struct fn_reader *f = d->f;
  if (n > (size_t)(f->end - f->at)) {
    fail(d, damaged);
    return NULL;
  }
  f->at += n;
  return f->at - n;
}

static bool get_bytes(struct decoder *d, void *out, size_t n) {
  const char *from = get_raw(d, n);
  if (from) memcpy(out, from, n);
  return from;
}

static bool get_u8(struct decoder *d, uint8_t *out) {
  return get_bytes(d, out, sizeof *out);
}

static bool get_u32(struct decoder *d, uint32_t *out) {
  return get_bytes(d, out, sizeof *out);
}

/* --- simple values --- */

/* Pushes the string; of a long one it notes where it is, and returns false. */
static bool get_str(struct decoder *d) {
  uint32_t n;
  const char *s;
  if (!get_u32(d, &n) || !(s = get_raw(d, n))) return false;
  if (n > PIECE && !d->f->whole) {
    d->f->text = s;
    d->f->len = n;
    return false;
  }
  lua_pushlstring(d->L, s, n);
  d->work -= (int)(n / TEXT_COST);
  return true;
}

static bool get_pid(struct decoder *d) {
  uint64_t number;
  uint32_t creation, n, incarnation;
  char name[NODENAME_SIZE];
  struct nodename parsed;
  if (!get_bytes(d, &number, sizeof number) || !get_u32(d, &creation) || !get_u32(d, &n)) return false;
  if (n >= sizeof name || !get_bytes(d, name, n)) return fail(d, damaged);
  name[n] = '\0';
  if (nodename_parse(name, &parsed, NULL) || parsed.port) return fail(d, damaged);
  int rc = nodetab_intern(d->iso->config->nodes, parsed.full, creation, &incarnation);
  if (rc == ERR_BUSY) incarnation = NODETAB_NOWHERE;
  if (rc && rc != ERR_BUSY) return fail(d, err_sentence(rc));
  npid pid = npid_make(incarnation, number & NPID_NUMBER_MAX);
  copy_push_npid(d->L, number & REF_BIT ? npid_as_ref(pid) : pid);
  return true;
}

static int load_library(lua_State *L) {
  process_of(L)->isolate->hooks->library(L, lua_tostring(L, 1));
  return 1;
}

/* Pushes the value of the name at the top, from a module of the node that is not loaded yet. */
static bool load_name(struct decoder *d) {
  lua_State *L = d->L;
  lua_pushcfunction(L, load_library);
  lua_pushvalue(L, -2);
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_ERRMEM) lua_error(L);
  if (status != LUA_OK) {
    const char *why = lua_tostring(L, -1);
    return fail(d, why ? why : "a module cannot be loaded");
  }
  return !lua_isnil(L, -1) || fail(d, lua_pushfstring(L, "this node has no '%s'", lua_tostring(L, -2)));
}

static bool get_name(struct decoder *d) {
  lua_State *L = d->L;
  uint32_t n;
  const char *s;
  if (!get_u32(d, &n) || !(s = get_raw(d, n))) return false;
  lua_pushlstring(L, s, n);
  lua_rawgeti(L, LUA_REGISTRYINDEX, d->iso->refs.values);
  lua_pushvalue(L, -2);
  bool known = lua_rawget(L, -2) != LUA_TNIL;
  lua_remove(L, -2);
  if (!known) lua_pop(L, 1);
  if (!known && !load_name(d)) return false;
  lua_remove(L, -2);
  return true;
}

static bool get_number(struct decoder *d, enum fn_tag tag) {
  union {
    lua_Integer i;
    lua_Number d;
  } v;
  if (!get_bytes(d, &v, sizeof v)) return false;
  if (tag == INT) {
    lua_pushinteger(d->L, v.i);
  } else {
    lua_pushnumber(d->L, v.d);
  }
  return true;
}

/* Pushes an instance. */
static bool get_body(struct decoder *d, uint32_t *upvalues) {
  uint32_t len;
  uint8_t count;
  const char *body, *problem;
  if (!get_u32(d, &len) || !(body = get_raw(d, len))) return false;
  struct factory *made = factory_find(d->L, d->iso, body, len, &problem);
  if (!made) return fail(d, problem);
  if (!get_u8(d, &count)) return false;
  if (count != made->upvalues) return fail(d, damaged);
  factory_push(d->L, made);
  d->work -= (int)(len / CODE_COST);
  *upvalues = count;
  return true;
}

/* Pushes a value that is no object.  False: there is a problem, or it is a long string. */
static bool get_plain(struct decoder *d, uint8_t tag) {
  switch (tag) {
  case NIL: lua_pushnil(d->L); return true;
  case FALSE:
  case TRUE: lua_pushboolean(d->L, tag == TRUE); return true;
  case INT:
  case FLOAT: return get_number(d, tag);
  case STR: return get_str(d);
  case PID: return get_pid(d);
  case NAME: return get_name(d);
  case GLOBALS: process_push_env(d->L, d->p); return true;
  default: return fail(d, damaged);
  }
}

/* --- objects and cells --- */

enum { EXPECTED = 8 };
enum kind { OF_OBJECTS = 1, OF_CELLS = -1 };

static lua_Integer chunk_of(enum kind kind, uint32_t n) {
  return (int)kind * (lua_Integer)((n - 1) / CHUNK + 1);
}

static lua_Integer place_in_chunk(uint32_t n) {
  return (n - 1) % CHUNK + 1;
}

/* Pushes object or cell n; false: it was not decoded. */
static bool push_entry(struct decoder *d, enum kind kind, uint32_t n) {
  lua_State *L = d->L;
  if (n == 0 || lua_rawgeti(L, place(d, OBJECTS), chunk_of(kind, n)) != LUA_TTABLE) return fail(d, missing);
  int type = lua_rawgeti(L, -1, place_in_chunk(n));
  lua_remove(L, -2);
  return type != LUA_TNIL || fail(d, missing);
}

/* Pops the value of entry n, for the table at index `objects`. */
static void set_entry(lua_State *L, int objects, enum kind kind, uint32_t n) {
  if (lua_rawgeti(L, objects, chunk_of(kind, n)) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_createtable(L, n == 1 ? EXPECTED : 0, 0);
    lua_pushvalue(L, -1);
    lua_rawseti(L, objects, chunk_of(kind, n));
  }
  lua_insert(L, -2);
  lua_rawseti(L, -2, place_in_chunk(n));
  lua_pop(L, 1);
}

/* Gives the next number to the object at the top. */
static uint32_t enter(struct decoder *d, int objects) {
  lua_pushvalue(d->L, -1);
  set_entry(d->L, objects, OF_OBJECTS, ++d->scope->objects);
  return d->scope->objects;
}

/* Gives the next number to the cell of upvalue i of an object. */
static void new_cell(struct decoder *d, int objects, uint32_t object, int i) {
  lua_pushinteger(d->L, (lua_Integer)object << 8 | i);
  set_entry(d->L, objects, OF_CELLS, ++d->scope->cells);
}

/* Pushes the table of the objects of this message, which is made for the first function that needs it. */
static void push_objects(struct decoder *d) {
  lua_State *L = d->L;
  int ref = d->iso->refs.read;
  if (d->scope->stage == FN_MANY) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    return;
  }
  lua_createtable(L, 1, 1);
  lua_pushvalue(L, -1);
  lua_rawseti(L, LUA_REGISTRYINDEX, ref);
  d->scope->stage = FN_MANY;
}

/* Makes a table of the sizes that are announced, of which no more are believed than the payload can have. */
static bool get_table(struct decoder *d) {
  struct fn_reader *f = d->f;
  uint32_t array, pairs;
  if (!get_u32(d, &array) || !get_u32(d, &pairs)) return false;
  if (array > f->room || pairs > f->room - array) return fail(d, damaged);
  f->room -= array + pairs;
  lua_createtable(d->L, (int)array, (int)pairs);
  enter(d, place(d, OBJECTS));
  return true;
}

static bool get_function(struct decoder *d) {
  uint32_t upvalues;
  if (!get_body(d, &upvalues)) return false;
  enter(d, place(d, OBJECTS));
  return true;
}

/* Numbers the flat function at the top and its cells; they are entered only if something refers to them. */
static void number_flat(struct decoder *d, uint32_t upvalues, bool referred) {
  if (!referred) {
    d->scope->objects++;
    d->scope->cells += upvalues;
    return;
  }
  push_objects(d);
  lua_insert(d->L, -2);
  int objects = lua_gettop(d->L) - 1;
  uint32_t id = enter(d, objects);
  for (uint32_t i = 1; i <= upvalues; i++) new_cell(d, objects, id, (int)i);
  lua_remove(d->L, objects);
}

static bool get_flat(struct decoder *d) {
  uint32_t upvalues;
  uint8_t referred, tag;
  if (d->f->stage != ROOT) return fail(d, damaged);
  if (!get_body(d, &upvalues) || !get_u8(d, &referred)) return false;
  number_flat(d, upvalues, referred);
  for (uint32_t i = 1; i <= upvalues; i++) {
    if (!get_u8(d, &tag) || !get_plain(d, tag)) return d->f->problem ? false : fail(d, damaged);
    lua_setupvalue(d->L, -2, (int)i);
  }
  d->f->next = d->scope->objects + 1;
  return true;
}

/* Pushes a value.  False: there is a problem, or it is a long string. */
static bool get(struct decoder *d) {
  uint8_t tag;
  uint32_t n;
  d->work--;
  if (!get_u8(d, &tag)) return false;
  switch (tag) {
  case TABLE: return get_table(d);
  case FUNCTION: return get_function(d);
  case FLAT: return get_flat(d);
  case BACK: return get_u32(d, &n) && push_entry(d, OF_OBJECTS, n);
  default: return get_plain(d, tag);
  }
}

/* --- contents --- */

static int count_upvalues(lua_State *L, int index) {
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  return ar.nups;
}

/* Begins with the contents of the next object; false: there is none, or a problem. */
static bool begin_object(struct decoder *d) {
  lua_State *L = d->L;
  struct fn_reader *f = d->f;
  if (f->next > d->scope->objects) return f->at != f->end && fail(d, damaged);
  lua_settop(L, place(d, OBJECTS));
  if (!push_entry(d, OF_OBJECTS, f->next)) return false;
  f->stage = lua_istable(L, -1) ? KEYS : UPVALUES;
  if (f->stage == KEYS) return true;
  f->i = 0;
  f->count = count_upvalues(L, place(d, OBJECT));
  return true;
}

static void end_object(struct decoder *d) {
  d->f->stage = NEXT;
  d->f->next++;
}

/* Makes upvalue i of the object the same variable as the upvalue that had the cell first. */
static bool join(struct decoder *d, int i, uint32_t cell) {
  lua_State *L = d->L;
  if (!push_entry(d, OF_CELLS, cell)) return false;
  lua_Integer owner = lua_tointeger(L, -1);
  if (!push_entry(d, OF_OBJECTS, (uint32_t)(owner >> 8))) return false;
  lua_upvaluejoin(L, place(d, OBJECT), i, -1, (int)(owner & 255));
  lua_pop(L, 2);
  return true;
}

/* Goes on to the next upvalue, or to the value that it has if its cell is new. */
static bool next_upvalue(struct decoder *d) {
  struct fn_reader *f = d->f;
  uint32_t cell;
  d->work--;
  if (f->i == f->count) {
    end_object(d);
    return true;
  }
  f->i++;
  if (!get_u32(d, &cell)) return false;
  if (cell == 0 || cell > d->scope->cells + 1) return fail(d, damaged);
  if (cell <= d->scope->cells) return join(d, f->i, cell);
  new_cell(d, place(d, OBJECTS), f->next, f->i);
  f->stage = UPVALUE;
  return true;
}

static bool set_pair(struct decoder *d) {
  lua_State *L = d->L;
  int key = place(d, KEY);
  if (lua_type(L, key) == LUA_TNUMBER && lua_tonumber(L, key) != lua_tonumber(L, key))
    return fail(d, damaged); /* NaN */
  lua_rawset(L, place(d, OBJECT));
  return true;
}

/* Stores the metatable at the top, or nil. */
static bool set_meta(struct decoder *d) {
  lua_State *L = d->L;
  if (lua_isnil(L, -1)) return true;
  if (!lua_istable(L, -1)) return fail(d, damaged);
  lua_pushliteral(L, "__gc");
  if (lua_rawget(L, -2) != LUA_TNIL) return fail(d, "a table with a __gc metamethod cannot be sent");
  lua_pop(L, 1);
  lua_setmetatable(L, place(d, OBJECT));
  return true;
}

/* Stores the value at the top. */
static bool store(struct decoder *d) {
  struct fn_reader *f = d->f;
  switch ((enum stage)f->stage) {
  case ROOT:
    lua_replace(d->L, place(d, ROOT_PLACE));
    f->stage = NEXT;
    return true;
  case KEYS: f->stage = lua_isnil(d->L, -1) ? META : VALUES; return true;
  case VALUES: f->stage = KEYS; return set_pair(d);
  case META: end_object(d); return set_meta(d);
  case UPVALUE:
    lua_setupvalue(d->L, place(d, OBJECT), f->i);
    f->stage = UPVALUES;
    return true;
  case NEXT:
  case UPVALUES: break;
  }
  return true;
}

/* --- steps --- */

/* Reads how many objects and cells come before this function in its message.  When these were not decoded,
 * since the function comes alone or another one before it could not be made, it is read by itself. */
static bool continue_scope(struct decoder *d) {
  struct fn_scope *s = d->scope;
  uint32_t objects, cells;
  if (!get_u32(d, &objects) || !get_u32(d, &cells)) return false;
  if (objects > TERM_SIZE_MAX || cells > TERM_SIZE_MAX) return fail(d, damaged);
  d->f->next = objects + 1;
  if (objects && s->reader == d->p->pid && s->objects == objects && s->cells == cells) return true;
  fn_scope_end(d->L, s, d->iso->refs.read);
  s->reader = d->p->pid;
  s->objects = objects;
  s->cells = cells;
  return true;
}

static bool begin(struct decoder *d) {
  struct fn_reader *f = d->f;
  const char *magic = get_raw(d, MAGIC_LEN);
  if (!magic || memcmp(magic, FN_MAGIC, MAGIC_LEN - 1) != 0) return fail(d, damaged);
  if (magic[MAGIC_LEN - 1] != FN_MAGIC[MAGIC_LEN - 1])
    return fail(d, "a function was written by another version of node-toolkit");
  const char *header = get_raw(d, BYTECODE_HEADER);
  if (!header) return false;
  if (memcmp(header, d->iso->bytecode, BYTECODE_HEADER) != 0)
    return fail(d, "a function was made by another Lua than this node's (" LUA_RELEASE ")");
  if (!continue_scope(d)) return false;
  f->room = (size_t)(f->end - f->at) / 2;
  uint8_t tag = f->at < f->end ? (uint8_t)*f->at : NIL;
  if (tag == FLAT || tag == NAME) return true;
  push_objects(d);
  lua_replace(d->L, place(d, OBJECTS));
  return true;
}

static struct decoder decoder_of(lua_State *L, struct fn_reader *f, int work) {
  struct process *p = process_of(L);
  return (struct decoder){
      .L = L, .p = p, .iso = p->isolate, .scope = &p->isolate->read, .f = f, .work = work};
}

void fn_read_begin(lua_State *L, struct fn_reader *f, const char *payload, size_t len) {
  struct decoder d = decoder_of(L, f, 0);
  luaL_checkstack(L, 20, NULL);
  *f = (struct fn_reader){.at = payload, .end = payload + len, .base = lua_gettop(L) + 1, .stage = ROOT};
  lua_pushnil(L); /* at ROOT_PLACE */
  lua_pushnil(L); /* at OBJECTS */
  begin(&d);
}

/* Pushes the value that comes next, unless the caller has done so; false: a problem, or a long string. */
static bool has_value(struct decoder *d) {
  struct fn_reader *f = d->f;
  if (!f->text) return get(d);
  f->text = NULL;
  return true;
}

/* Reads some; false: there is a problem, a long string, or nothing more. */
static bool read_some(struct decoder *d) {
  switch (d->f->stage) {
  case NEXT: return begin_object(d);
  case UPVALUES: return next_upvalue(d);
  default: return has_value(d) && store(d);
  }
}

enum fn_step fn_read_on(lua_State *L, struct fn_reader *f, int *work) {
  struct decoder d = decoder_of(L, f, *work);
  bool more = !f->problem;
  while (more && d.work > 0) more = read_some(&d);
  *work = d.work;
  if (f->problem) {
    lua_pushstring(L, f->problem);
    lua_replace(L, f->base);
    lua_settop(L, f->base);
    fn_scope_end(L, d.scope, d.iso->refs.read); /* no later function may share what is half read */
    return FN_REFUSED;
  }
  if (more) return FN_GOES_ON;
  if (f->text) return FN_TEXT;
  lua_settop(L, f->base);
  return FN_DONE;
}
