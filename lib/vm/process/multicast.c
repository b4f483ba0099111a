/* Invariant: each place that is not unused lies in one of multicast.terms, which are held; so no other value
 * can have the same address.  The table refs.multicast has that value at the same index.  It was made with
 * room for all, so storing in it allocates nothing.  Both are made when the first value is kept, as most
 * isolates keep none. */
#include "vm/process/multicast.h"

#include <lauxlib.h>
#include <stdlib.h>

/* Makes the places, and the table, which belong to the isolate. */
static void open_places(lua_State *L, struct isolate *iso) {
  uint32_t process = iso->heap.owner;
  heap_enter(&iso->heap, HEAP_ISOLATE);
  lua_createtable(L, MULTICAST_VALUES, 0);
  int ref = luaL_ref(L, LUA_REGISTRYINDEX);
  heap_enter(&iso->heap, process);
  iso->multicast.places = calloc(MULTICAST_VALUES, sizeof *iso->multicast.places);
  if (!iso->multicast.places) {
    luaL_unref(L, LUA_REGISTRYINDEX, ref);
    luaL_error(L, "out of memory");
  }
  iso->refs.multicast = ref;
}

void multicast_close(struct isolate *iso) {
  multicast_forget(iso->L, iso);
  free(iso->multicast.places);
  iso->multicast.places = NULL;
}

void multicast_forget(lua_State *L, struct isolate *iso) {
  struct multicast *c = &iso->multicast;
  c->now = NULL;
  if (c->values_len) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.multicast);
    for (int i = 0; i < MULTICAST_VALUES; i++) {
      if (!c->places[i].at) continue;
      c->places[i].at = NULL;
      lua_pushboolean(L, 0);
      lua_rawseti(L, -2, i + 1);
    }
    lua_pop(L, 1);
    c->values_len = 0;
  }
  while (c->terms_len) term_unref(c->terms[--c->terms_len]);
}

static bool is_known(const struct multicast *c, const struct term *t) {
  for (uint32_t i = 0; i < c->terms_len; i++)
    if (c->terms[i] == t) return true;
  return false;
}

void multicast_begin(struct isolate *iso, struct term *t) {
  struct multicast *c = &iso->multicast;
  c->now = NULL;
  if (!t || t->size <= MULTICAST_LEAST) return;
  if (!is_known(c, t)) {
    if (atomic_load_explicit(&t->refs, memory_order_relaxed) == 1) return;
    if (c->terms_len == MULTICAST_TERMS) multicast_forget(iso->L, iso);
    c->terms[c->terms_len++] = term_ref(t);
  }
  c->now = t;
}

static bool is_in(const struct term *t, const void *at) {
  return t && (uintptr_t)at - (uintptr_t)t->bytes < t->size;
}

static uint32_t place_of(const void *at) {
  return (uint32_t)((uintptr_t)at * UINT64_C(0x9e3779b97f4a7c15) >> 54);
}
_Static_assert(MULTICAST_VALUES == 1 << 10, "10 bits of the hash are a place");

static bool has_room(const struct isolate *iso, size_t n) {
  size_t held = (size_t)heap_held(&iso->heap, HEAP_MULTICAST), bound = iso->config->heap_max / MULTICAST_PART;
  return n < bound && held < bound - n;
}

size_t multicast_find(lua_State *L, struct isolate *iso, const void *at) {
  const struct multicast *c = &iso->multicast;
  if (!c->now || !c->values_len) return 0;
  uint32_t place = place_of(at);
  if (c->places[place].at != at || !is_in(c->now, at)) return 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.multicast);
  lua_rawgeti(L, -1, (lua_Integer)place + 1);
  lua_replace(L, -2);
  return c->places[place].n;
}

/* Keeps the value at the top, and leaves it there. */
static void keep(lua_State *L, struct isolate *iso, const void *at, size_t n) {
  struct multicast *c = &iso->multicast;
  if (!c->places) open_places(L, iso);
  struct multicast_place *place = &c->places[place_of(at)];
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.multicast);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, place - c->places + 1);
  lua_pop(L, 1);
  c->values_len += place->at == NULL;
  *place = (struct multicast_place){at, n};
}

void multicast_keep(lua_State *L, struct isolate *iso, const void *at, size_t n, size_t bytes,
                    void (*make)(lua_State *L, struct isolate *iso)) {
  if (!is_in(iso->multicast.now, at) || !has_room(iso, bytes)) return;
  /* If malloc fails in make, the process is charged for nothing until its turn ends. */
  uint32_t process = iso->heap.owner;
  heap_enter(&iso->heap, HEAP_MULTICAST);
  make(L, iso);
  heap_enter(&iso->heap, process);
  if (!lua_isnil(L, -1)) keep(L, iso, at, n);
  lua_pop(L, 1);
}

/* If malloc fails here, the process is charged for nothing until its turn ends. */
static void push_charged_to(lua_State *L, struct heap *h, uint32_t owner, const char *s, size_t n) {
  uint32_t process = h->owner;
  heap_enter(h, owner);
  lua_pushlstring(L, s, n);
  heap_enter(h, process);
}

void multicast_push(lua_State *L, struct isolate *iso, const char *s, size_t n) {
  if (!is_in(iso->multicast.now, s)) {
    lua_pushlstring(L, s, n);
    return;
  }
  luaL_checkstack(L, 5, NULL);
  if (!multicast_find(L, iso, s)) {
    bool room = has_room(iso, n);
    push_charged_to(L, &iso->heap, room ? HEAP_MULTICAST : iso->heap.owner, s, n);
    if (room) keep(L, iso, s, n);
  }
}
