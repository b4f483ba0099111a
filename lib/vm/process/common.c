/* Invariant: each place of common.strings that is not NULL lies in one of common.terms, which are held; so no
 * other string can have the same address.  The table refs.common has that string at the same place.  It was
 * made with room for all places, so storing in it allocates nothing. */
#include "vm/process/common.h"

#include <lauxlib.h>
#include <string.h>

void common_open(lua_State *L, struct isolate *iso) {
  lua_createtable(L, COMMON_STRINGS, 0);
  iso->refs.common = luaL_ref(L, LUA_REGISTRYINDEX);
  iso->common = (struct common){0};
}

void common_forget(lua_State *L, struct isolate *iso) {
  struct common *c = &iso->common;
  c->now = NULL;
  if (c->strings_len) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.common);
    for (int i = 0; i < COMMON_STRINGS; i++) {
      if (!c->strings[i]) continue;
      c->strings[i] = NULL;
      lua_pushboolean(L, 0);
      lua_rawseti(L, -2, i + 1);
    }
    lua_pop(L, 1);
    c->strings_len = 0;
  }
  while (c->terms_len) term_unref(c->terms[--c->terms_len]);
}

static bool is_known(const struct common *c, const struct term *t) {
  for (uint32_t i = 0; i < c->terms_len; i++)
    if (c->terms[i] == t) return true;
  return false;
}

void common_begin(struct isolate *iso, struct term *t) {
  struct common *c = &iso->common;
  c->now = NULL;
  if (!t || t->size <= COMMON_LEAST) return;
  if (!is_known(c, t)) {
    if (atomic_load_explicit(&t->refs, memory_order_relaxed) == 1) return;
    if (c->terms_len == COMMON_TERMS) common_forget(iso->L, iso);
    c->terms[c->terms_len++] = term_ref(t);
  }
  c->now = t;
}

static bool is_in(const struct term *t, const char *s) {
  return t && (uintptr_t)s - (uintptr_t)t->bytes < t->size;
}

static uint32_t place_of(const char *s) {
  return (uint32_t)((uintptr_t)s * UINT64_C(0x9e3779b97f4a7c15) >> 58);
}
_Static_assert(COMMON_STRINGS == 1 << 6, "6 bits of the hash are a place");

static bool has_room(const struct isolate *iso, size_t n) {
  size_t held = (size_t)heap_held(&iso->heap, HEAP_COMMON), bound = iso->config->heap_max / COMMON_PART;
  return n < bound && held < bound - n;
}

/* If malloc fails here, the process is charged for nothing until its turn ends. */
static void push_charged_to(lua_State *L, struct heap *h, uint32_t owner, const char *s, size_t n) {
  uint32_t process = h->owner;
  heap_enter(h, owner);
  lua_pushlstring(L, s, n);
  heap_enter(h, process);
}

void common_push(lua_State *L, struct isolate *iso, const char *s, size_t n) {
  struct common *c = &iso->common;
  uint32_t place = place_of(s);
  bool shared = is_in(c->now, s);
  if (shared && c->strings[place] == s) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.common);
    lua_rawgeti(L, -1, (lua_Integer)place + 1);
    lua_remove(L, -2);
  } else if (shared && has_room(iso, n)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.common);
    push_charged_to(L, &iso->heap, HEAP_COMMON, s, n);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, (lua_Integer)place + 1);
    lua_remove(L, -2);
    c->strings_len += c->strings[place] == NULL;
    c->strings[place] = s;
  } else {
    lua_pushlstring(L, s, n);
  }
}
