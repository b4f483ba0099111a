/* Invariant: iso->factories maps the hash of a body to the chain of factories with that hash.  Programs
 * that make code at run time could fill the table without end, so at FACTORIES_MAX factories, or
 * FACTORY_BYTES_MAX bytes of bodies, all factories are dropped; each is made again when it is used.
 *
 * Dumping a function to learn its body takes longer than the rest of a spawn.  So the last functions seen are
 * remembered by the address of their prototype, which all closures of one place in the source share.  Lua has
 * no call that returns that address: it is read from where Lua 5.4 keeps it in a closure, after a trial when
 * the isolate opens has shown that it is there.  The address means that prototype as long as a closure of it
 * is alive; a weak table shows whether one is.
 *
 * A weak table from closure to factory, which needs no layout of Lua, was measured: it is 56 % slower where
 * each spawn makes its closure anew (spawn(function() … end)), 10 % with idle processes, 2 % with one named
 * function. */
#include "vm/copy/factory.h"

#include "vm/copy/bytecode.h"
#include "vm/process/facts.h"
#include "vm/process/isolate.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { FACTORIES_MAX = 4096, FACTORY_BYTES_MAX = 8 << 20, PROTO_OFFSET = 24 };

static uint64_t hash(const uint8_t *bytes, size_t n) {
  uint64_t h = n * UINT64_C(0x9e3779b97f4a7c15), word;
  for (; n >= 8; bytes += 8, n -= 8) {
    memcpy(&word, bytes, 8);
    h = (h ^ word) * UINT64_C(0xd6e8feb86659fd93);
    h ^= h >> 32;
  }
  word = 0;
  if (n) memcpy(&word, bytes, n);
  h = (h ^ word) * UINT64_C(0xd6e8feb86659fd93);
  return h ^ h >> 32;
}

void factory_drop_all(struct isolate *iso) {
  void *value;
  for (size_t at = 0; map_next(&iso->factories, &at, NULL, NULL, &value);) {
    for (struct factory *f = value, *next; f; f = next) {
      next = f->next;
      luaL_unref(iso->L, LUA_REGISTRYINDEX, f->ref);
      facts_drop_label(iso, f->label);
      free(f);
    }
  }
  map_finish(&iso->factories);
  iso->factory_bytes = 0;
  iso->factory_drops++;
  memset(iso->protos, 0, sizeof iso->protos);
}

static struct factory *make(lua_State *L, struct isolate *iso, const uint8_t *body, size_t len, uint64_t key,
                            const char **problem) {
  uint32_t upvalues;
  *problem = bytecode_factory(L, body, len, &upvalues);
  if (*problem) return NULL;
  int ref = luaL_ref(L, LUA_REGISTRYINDEX);
  if (iso->factories.len >= FACTORIES_MAX || iso->factory_bytes + len > FACTORY_BYTES_MAX)
    factory_drop_all(iso);
  struct factory *f = malloc(sizeof *f + len);
  if (f) {
    *f = (struct factory){
        .next = map_get_id(&iso->factories, key), .ref = ref, .upvalues = upvalues, .len = len};
    memcpy(f->body, body, len);
  }
  if (f && map_put_id(&iso->factories, key, f) == 0) {
    iso->factory_bytes += len;
    return f;
  }
  free(f);
  luaL_unref(L, LUA_REGISTRYINDEX, ref);
  *problem = "out of memory";
  return NULL;
}

struct factory *factory_find(lua_State *L, struct isolate *iso, const void *body, size_t len,
                             const char **problem) {
  uint64_t key = hash(body, len);
  struct factory *f = map_get_id(&iso->factories, key);
  while (f && (f->len != len || memcmp(f->body, body, len) != 0)) f = f->next;
  return f ? f : make(L, iso, body, len, key, problem);
}

struct label *factory_label(lua_State *L, struct isolate *iso, struct factory *f, int index) {
  if (!f->label) f->label = facts_label(L, iso, index);
  return f->label;
}

void factory_push(lua_State *L, const struct factory *f) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, f->ref);
  lua_call(L, 0, 1);
}

/* --- by prototype --- */

static const void *proto_of(lua_State *L, int index) {
  const void *proto;
  memcpy(&proto, (const char *)lua_topointer(L, index) + PROTO_OFFSET, sizeof proto);
  return proto;
}

/* Trial: two closures of one function must have the same word at PROTO_OFFSET, and a closure of another
 * function a different one. */
void factory_open(lua_State *L, struct isolate *iso) {
  static const char trial[] = "local function f() return function() return f end end\n"
                              "return f(), f(), function() return f end";
  iso->knows_protos = false;
  if (sizeof(void *) == 8 && luaL_loadstring(L, trial) == LUA_OK) {
    lua_call(L, 0, 3);
    const void *a = proto_of(L, -3), *b = proto_of(L, -2), *c = proto_of(L, -1);
    iso->knows_protos = a == b && a != c && a != lua_topointer(L, -3);
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  iso->refs.witnesses = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Is a closure of the remembered prototype still alive?  The witness is such a closure, held by a weak table.
 */
static bool has_witness(lua_State *L, const struct isolate *iso, size_t place, const void *proto) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.witnesses);
  bool lives = lua_rawgeti(L, -1, (lua_Integer)place + 1) == LUA_TFUNCTION && proto_of(L, -1) == proto;
  lua_pop(L, 2);
  return lives;
}

static void set_witness(lua_State *L, const struct isolate *iso, size_t place, int index) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.witnesses);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, (lua_Integer)place + 1);
  lua_pop(L, 1);
}

struct factory *factory_of(lua_State *L, struct isolate *iso, int index, const char **problem) {
  const void *proto = iso->knows_protos ? proto_of(L, index) : NULL;
  size_t place = ((uintptr_t)proto >> 4) % ISOLATE_PROTOS;
  struct isolate_proto *known = &iso->protos[place];
  if (proto && known->proto == proto && has_witness(L, iso, place, proto)) return known->factory;
  buf_clear(&iso->dump);
  lua_pushvalue(L, index);
  bool whole = bytecode_dump(L, &iso->dump) && iso->dump.len > BYTECODE_BODY;
  lua_pop(L, 1);
  if (!whole) {
    *problem = "out of memory";
    return NULL;
  }
  struct factory *f =
      factory_find(L, iso, iso->dump.data + BYTECODE_BODY, iso->dump.len - BYTECODE_BODY, problem);
  if (f && proto) {
    *known = (struct isolate_proto){NULL, NULL};
    set_witness(L, iso, place, index);
    *known = (struct isolate_proto){proto, f};
  }
  return f;
}
