/* Invariant: iso->factories maps the hash of a body to the chain of factories with that hash.  Code that is
 * made at run time could fill the table without end, so at FACTORIES_MAX all are dropped, to be made again on
 * use. */
#include "vm/factory.h"

#include "vm/bytecode.h"
#include "vm/isolate.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { FACTORIES_MAX = 4096 };

struct factory {
  struct factory *next;
  int ref; /* of the factory function in the registry */
  uint32_t upvalues;
  size_t len;
  uint8_t body[];
};

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
      free(f);
    }
  }
  map_finish(&iso->factories);
}

static const char *make(lua_State *L, struct isolate *iso, const uint8_t *body, size_t len, uint64_t key,
                        struct factory **out) {
  uint32_t upvalues;
  const char *problem = bytecode_factory(L, body, len, &upvalues);
  if (problem) return problem;
  int ref = luaL_ref(L, LUA_REGISTRYINDEX);
  if (iso->factories.len >= FACTORIES_MAX) factory_drop_all(iso);
  struct factory *f = malloc(sizeof *f + len);
  if (f) {
    *f = (struct factory){
        .next = map_get_id(&iso->factories, key), .ref = ref, .upvalues = upvalues, .len = len};
    memcpy(f->body, body, len);
  }
  if (!f || map_put_id(&iso->factories, key, f)) {
    free(f);
    luaL_unref(L, LUA_REGISTRYINDEX, ref);
    return "out of memory";
  }
  *out = f;
  return NULL;
}

const char *factory_instance(lua_State *L, struct isolate *iso, const uint8_t *body, size_t len,
                             uint32_t *upvalues) {
  uint64_t key = hash(body, len);
  struct factory *f = map_get_id(&iso->factories, key);
  while (f && (f->len != len || memcmp(f->body, body, len) != 0)) f = f->next;
  const char *problem = f ? NULL : make(L, iso, body, len, key, &f);
  if (problem) return problem;
  lua_rawgeti(L, LUA_REGISTRYINDEX, f->ref);
  lua_call(L, 0, 1);
  *upvalues = f->upvalues;
  return NULL;
}
