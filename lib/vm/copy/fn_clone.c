/* Within an isolate a function is copied without an encoding, unless it has captured much: then it is
 * encoded, so that the process can give way.
 *
 * A graph is scanned first, by which nothing is made; so a function that cannot be copied in this way is left
 * as it was.  The scan and the copy go through the objects in the order in which they are met; no code runs
 * in between, so both meet the same ones, except that the collector may clear entries of weak tables. */
#include "vm/copy/fn.h"

#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/copy/fn_format.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <string.h>

static int count_upvalues(lua_State *L, int index) {
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">u", &ar);
  return ar.nups;
}

struct factory *fn_clone(lua_State *L, int index) {
  struct process *p = process_of(L);
  struct isolate *iso = p->isolate;
  int top = lua_gettop(L), count = count_upvalues(L, index);
  luaL_checkstack(L, count + 8, NULL);
  process_push_env(L, p);
  lua_pushnil(L); /* the place of the copy, below the values of the function's upvalues */
  bool plain = !lua_iscfunction(L, index);
  for (int i = 1; i <= count && plain; i++) {
    lua_getupvalue(L, index, i);
    plain = lua_rawequal(L, -1, top + 1) ||
            (fn_is_plain(L, lua_gettop(L), iso) && !copy_is_long(L, -1, lua_type(L, -1)));
  }
  if (!plain) {
    lua_settop(L, top);
    return NULL;
  }
  const char *problem;
  struct factory *f = factory_of(L, iso, index, &problem);
  if (!f) {
    luaL_error(L, "%s", problem);
    return NULL; /* luaL_error does not return */
  }
  factory_push(L, f);
  lua_replace(L, top + 2);
  for (int i = count; i >= 1; i--) lua_setupvalue(L, top + 2, i);
  return f;
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

/* --- what was met --- */

enum { NOT_MET, GLOBALS_MET, FIRST_MET }; /* of an object n (from 0) FIRST_MET + n, of a cell its owner */

/* The place of an object, or of a cell. */
static struct fn_met *place_of(struct fn_graph *g, const void *key) {
  size_t i = ((uintptr_t)key >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 55;
  while (g->met[i].key && g->met[i].key != key) i = (i + 1) % FN_GRAPH_PLACES;
  return &g->met[i];
}
_Static_assert(FN_GRAPH_PLACES == 1 << (64 - 55), "9 bits of the hash are a place");

/* Enters a key that was not met before; false: there is no room for it. */
static bool enter(struct fn_graph *g, struct fn_met *place, const void *key, uint32_t number) {
  if (g->keys == FN_GRAPH_KEYS) return false;
  g->keys++;
  *place = (struct fn_met){key, number};
  return true;
}

/* --- scan --- */

/* Enters the value at this index from the top, if it is an object that was not met; false: it cannot be
 * cloned. */
static bool visit(lua_State *L, struct fn_graph *g, int index) {
  int type = lua_type(L, index);
  if (type == LUA_TUSERDATA || type == LUA_TTHREAD || copy_is_long(L, index, type)) return false;
  if (type != LUA_TTABLE && type != LUA_TFUNCTION) return true;
  const void *key = lua_topointer(L, index);
  struct fn_met *place = place_of(g, key);
  if (place->key || fn_is_plain(L, lua_absindex(L, index), g->iso)) return true;
  if (lua_iscfunction(L, index) || g->objects == FN_GRAPH_OBJECTS) return false;
  if (!enter(g, place, key, FIRST_MET + (uint32_t)g->objects)) return false;
  lua_pushvalue(L, index);
  lua_insert(L, g->first + g->objects++);
  return true;
}

static bool scan_meta(lua_State *L, struct fn_graph *g, int table) {
  if (!lua_getmetatable(L, table)) return true;
  lua_pushliteral(L, "__gc");
  bool good = lua_rawget(L, -2) == LUA_TNIL;
  lua_pop(L, 1);
  good = good && visit(L, g, -1);
  lua_pop(L, 1);
  return good;
}

static bool scan_table(lua_State *L, struct fn_graph *g, int table, struct fn_object *o) {
  lua_Integer border = (lua_Integer)lua_rawlen(L, table);
  uint32_t pairs = 0, array = 0;
  lua_pushnil(L);
  while (lua_next(L, table)) {
    if (++g->values > FN_GRAPH_VALUES || !visit(L, g, -2) || !visit(L, g, -1)) return false;
    pairs++;
    lua_pop(L, 1);
    if (lua_isinteger(L, -1) && lua_tointeger(L, -1) >= 1 && lua_tointeger(L, -1) <= border) array++;
  }
  bool list = array >= border - array; /* as in fn_out.c */
  o->array = list ? (int)border : 0;
  o->pairs = (int)(pairs - (list ? array : 0));
  return scan_meta(L, g, table);
}

static bool scan_function(lua_State *L, struct fn_graph *g, int function, struct fn_object *o) {
  const char *problem;
  o->factory = factory_of(L, g->iso, function, &problem);
  if (!o->factory) return false;
  g->values += (int)o->factory->upvalues;
  if (g->values > FN_GRAPH_VALUES) return false;
  for (int i = 1; i <= (int)o->factory->upvalues; i++) {
    const void *cell = lua_upvalueid(L, function, i);
    struct fn_met *place = place_of(g, cell);
    if (place->key) continue;
    if (!enter(g, place, cell, (uint32_t)(function - g->first) << 8 | (uint32_t)i)) return false;
    lua_getupvalue(L, function, i);
    bool good = visit(L, g, -1);
    lua_pop(L, 1);
    if (!good) return false;
  }
  return true;
}

static bool scan_objects(lua_State *L, struct fn_graph *g) {
  uint32_t drops = g->iso->factory_drops;
  for (int n = 0; n < g->objects; n++) {
    int index = g->first + n;
    struct fn_object *o = &g->object[n];
    o->factory = NULL;
    if (lua_istable(L, index) ? !scan_table(L, g, index, o) : !scan_function(L, g, index, o)) return false;
  }
  return drops == g->iso->factory_drops;
}

bool fn_graph_scan(lua_State *L, int index, struct fn_graph *g) {
  struct process *p = process_of(L);
  luaL_checkstack(L, FN_GRAPH_OBJECTS + 20, NULL);
  g->iso = p->isolate;
  g->first = lua_gettop(L) + 1;
  g->objects = g->keys = g->values = 0;
  memset(g->met, 0, sizeof g->met);
  process_push_env(L, p);
  const void *globals = lua_topointer(L, -1);
  lua_pop(L, 1);
  lua_pushvalue(L, index);
  bool good = enter(g, place_of(g, globals), globals, GLOBALS_MET) && visit(L, g, -1) && g->objects == 1;
  if (good) lua_pop(L, 1);
  good = good && scan_objects(L, g);
  lua_settop(L, g->first - 1 + (good ? g->objects : 0));
  return good;
}

/* --- copy: the stack has the objects, the new globals, the graph, and the copies --- */

static int copy_place(const struct fn_graph *g, int n) {
  return g->objects + 3 + n;
}

/* Replaces the value at the top by its copy. */
static void translate(lua_State *L, struct fn_graph *g) {
  int type = lua_type(L, -1);
  if (type != LUA_TTABLE && type != LUA_TFUNCTION) return;
  const struct fn_met *place = place_of(g, lua_topointer(L, -1));
  if (!place->key) return;
  lua_pushvalue(L, place->number == GLOBALS_MET ? g->objects + 1
                                                : copy_place(g, (int)(place->number - FIRST_MET)));
  lua_replace(L, -2);
}

static void copy_table(lua_State *L, struct fn_graph *g, int n) {
  int from = n + 1, to = copy_place(g, n);
  lua_pushnil(L);
  while (lua_next(L, from)) {
    lua_pushvalue(L, -2);
    translate(L, g);
    lua_insert(L, -2);
    translate(L, g);
    lua_rawset(L, to);
  }
  if (!lua_getmetatable(L, from)) return;
  translate(L, g);
  lua_setmetatable(L, to);
}

static void copy_upvalues(lua_State *L, struct fn_graph *g, int n) {
  int from = n + 1, to = copy_place(g, n);
  for (int i = 1; i <= (int)g->object[n].factory->upvalues; i++) {
    uint32_t owner = place_of(g, lua_upvalueid(L, from, i))->number;
    if (owner != ((uint32_t)n << 8 | (uint32_t)i)) {
      lua_upvaluejoin(L, to, i, copy_place(g, (int)(owner >> 8)), (int)(owner & 255));
      continue;
    }
    lua_getupvalue(L, from, i);
    translate(L, g);
    lua_setupvalue(L, to, i);
  }
}

int fn_graph_copy(lua_State *L) {
  struct fn_graph *g = lua_touserdata(L, -1);
  luaL_checkstack(L, g->objects + 20, NULL);
  for (int n = 0; n < g->objects; n++) {
    const struct fn_object *o = &g->object[n];
    if (o->factory)
      factory_push(L, o->factory);
    else
      lua_createtable(L, o->array, o->pairs);
  }
  for (int n = 0; n < g->objects; n++) {
    if (g->object[n].factory)
      copy_upvalues(L, g, n);
    else
      copy_table(L, g, n);
  }
  lua_pushvalue(L, copy_place(g, 0));
  return 1;
}
