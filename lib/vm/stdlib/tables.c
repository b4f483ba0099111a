/* table.concat, insert, move, remove, unpack and ipairs, written in Lua: there the call of a metamethod can
 * yield, and a long loop can be preempted.  Lua's own functions do the short work on tables without a
 * metatable. */
#include "vm/stdlib/yielding.h"

#include <lauxlib.h>
#include <stdbool.h>

enum { FEW = 1000 }; /* this many elements take far less than a time slice */

/* Upvalues of each function. */
enum { ORIGINAL = 1, WHICH };
enum { CONCAT, INSERT, MOVE, REMOVE, UNPACK, IPAIRS };

/* C calls these functions, and user code calls C: level 3 of an error is the user code.  C has checked the
 * arguments. */
static const char source[] =
    "local concat, unpack = table.concat, table.unpack\n"
    "local error, type, select = _G.error, _G.type, _G.select\n"
    "local ult, integer, format = math.ult, math.tointeger, string.format\n"
    "local function len(t)\n"
    "  return integer(#t) or error('object length is not an integer', 4)\n"
    "end\n"
    "local function within(ok, arg, name)\n"
    "  return ok or error(format(\"bad argument #%d to '%s' (position out of bounds)\", arg, name), 4)\n"
    "end\n"
    "local function position(at)\n"
    "  local i = integer(at)\n"
    "  if i then return i end\n"
    "  local problem = type(at) == 'number' and 'number has no integer representation'\n"
    "    or 'number expected, got ' .. type(at)\n"
    "  error(format(\"bad argument #2 to 'insert' (%s)\", problem), 4)\n"
    "end\n"
    "local function next_item(t, i)\n"
    "  local v = t[i + 1]\n"
    "  if v ~= nil then return i + 1, v end\n"
    "end\n"
    "return {\n"
    "  concat = function(t, sep, i, j)\n"
    "    local parts, n, chunks, m, last = {}, 0, {}, 0, len(t)\n"
    "    for k = i or 1, j or last do\n"
    "      local v = t[k]\n"
    "      if type(v) ~= 'string' and type(v) ~= 'number' then\n"
    "        error(format(\"invalid value (%s) at index %d in table for 'concat'\", type(v), k), 3)\n"
    "      end\n"
    "      n = n + 1\n"
    "      parts[n] = v\n"
    "      if n == 1000 then m, n = m + 1, 0 chunks[m] = concat(parts, sep) end\n"
    "    end\n"
    "    if n > 0 then m = m + 1 chunks[m] = concat(parts, sep, 1, n) end\n"
    "    return concat(chunks, sep)\n"
    "  end,\n"
    "  insert = function(t, ...)\n"
    "    local n, count, at, v = len(t) + 1, select('#', ...), ...\n"
    "    if count == 1 then t[n] = at return end\n"
    "    if count ~= 2 then error(\"wrong number of arguments to 'insert'\", 3) end\n"
    "    at = position(at)\n"
    "    within(ult(at - 1, n), 2, 'insert')\n"
    "    for i = n, at + 1, -1 do t[i] = t[i - 1] end\n"
    "    t[at] = v\n"
    "  end,\n"
    "  remove = function(t, at)\n"
    "    local n = len(t)\n"
    "    at = at or n\n"
    "    if at ~= n then within(not ult(n, at - 1), 2, 'remove') end\n"
    "    local v = t[at]\n"
    "    for i = at, n - 1 do t[i] = t[i + 1] end\n"
    "    t[at < n and n or at] = nil\n"
    "    return v\n"
    "  end,\n"
    "  move = function(from, first, last, to, into)\n"
    "    into = into or from\n"
    "    if to > last or to <= first or into ~= from then\n"
    "      for i = 0, last - first do into[to + i] = from[first + i] end\n"
    "    else\n"
    "      for i = last - first, 0, -1 do into[to + i] = from[first + i] end\n"
    "    end\n"
    "    return into\n"
    "  end,\n"
    "  unpack = function(t, i, j)\n"
    "    i, j = i or 1, j or len(t)\n"
    "    if i > j then return end\n"
    "    if j - i >= 250000 or j - i < 0 then error('too many results to unpack', 3) end\n"
    "    local items = {}\n"
    "    for k = i, j do items[k - i + 1] = t[k] end\n"
    "    return unpack(items, 1, j - i + 1)\n"
    "  end,\n"
    "  ipairs = function(t) return next_item, t, 0 end,\n"
    "}\n";

/* --- can Lua's own function do it? --- */

static bool has_metatable(lua_State *L, int index) {
  if (!lua_getmetatable(L, index)) return false;
  lua_pop(L, 1);
  return true;
}

/* Are first and last n or more apart? */
static bool apart(lua_Integer first, lua_Integer last, lua_Integer n) {
  return first <= last && (lua_Unsigned)last - (lua_Unsigned)first >= (lua_Unsigned)n;
}

/* Replaces an argument by its integer; returns `otherwise` for nil or none. */
static lua_Integer get(lua_State *L, int arg, lua_Integer otherwise) {
  if (lua_isnoneornil(L, arg)) return otherwise;
  lua_Integer n = luaL_checkinteger(L, arg);
  lua_pushinteger(L, n);
  lua_replace(L, arg);
  return n;
}

static lua_Integer length(lua_State *L) {
  return (lua_Integer)lua_rawlen(L, 1);
}

static bool concat_is_long(lua_State *L) {
  luaL_optstring(L, 2, "");
  lua_Integer i = get(L, 3, 1);
  return has_metatable(L, 1) || yielding_join_is_long(L, i, get(L, 4, length(L)));
}

static bool insert_is_long(lua_State *L) {
  int n = lua_gettop(L);
  if (has_metatable(L, 1)) return true; /* as in Lua, __len is called before the arguments are checked */
  if (n != 2 && n != 3) luaL_error(L, "wrong number of arguments to 'insert'");
  return n == 3 && apart(luaL_checkinteger(L, 2), length(L), FEW);
}

static bool remove_is_long(lua_State *L) {
  return apart(get(L, 2, length(L)), length(L), FEW) || has_metatable(L, 1);
}

/* Not long when an argument is out of range: Lua's own function raises the error. */
static bool move_is_long(lua_State *L) {
  for (int arg = 2; arg <= 4; arg++) luaL_checkinteger(L, arg);
  lua_Integer f = get(L, 2, 0), e = get(L, 3, 0), t = get(L, 4, 0);
  int into = lua_isnoneornil(L, 5) ? 1 : 5;
  if (e < f || !lua_istable(L, into)) return false;
  if ((f <= 0 && e >= LUA_MAXINTEGER + f) || t > LUA_MAXINTEGER - (e - f)) return false;
  return apart(f, e, FEW) || has_metatable(L, 1) || has_metatable(L, into);
}

static bool unpack_is_long(lua_State *L) {
  lua_Integer i = get(L, 2, 1), j = get(L, 3, 0);
  if (has_metatable(L, 1)) return true;
  if (apart(i, lua_isnoneornil(L, 3) ? length(L) : j, YIELDING_VALUES))
    luaL_error(L, "too many results to unpack");
  return false;
}

static bool ipairs_is_long(lua_State *L) {
  return has_metatable(L, 1);
}

/* --- the functions --- */

static const struct {
  const char *name;
  bool (*is_long)(lua_State *L); /* of a table; checks its arguments */
} functions[] = {
    [CONCAT] = {"concat", concat_is_long}, [INSERT] = {"insert", insert_is_long},
    [MOVE] = {"move", move_is_long},       [REMOVE] = {"remove", remove_is_long},
    [UNPACK] = {"unpack", unpack_is_long}, [IPAIRS] = {"ipairs", ipairs_is_long},
};

/* Compiled on first use: most isolates never need it. */
static void push_ours(lua_State *L, const char *name) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, source) != LUA_TTABLE) {
    lua_pop(L, 1);
    if (luaL_loadbufferx(L, source, sizeof source - 1, "=table", "t") != LUA_OK) lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, source);
  }
  lua_getfield(L, -1, name);
  lua_replace(L, -2);
}

static int results(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

static int call(lua_State *L) {
  int which = (int)lua_tointeger(L, lua_upvalueindex(WHICH));
  lua_CFunction original = lua_tocfunction(L, lua_upvalueindex(ORIGINAL));
  if (!lua_istable(L, 1) || !functions[which].is_long(L)) return original(L);
  if (which == CONCAT && !has_metatable(L, 1))
    return yielding_join(L, original, get(L, 3, 1), get(L, 4, length(L)));
  push_ours(L, functions[which].name);
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, results);
  return results(L, LUA_OK, 0);
}

/* Appending, which most calls do, has a path of its own. */
static int insert(lua_State *L) {
  if (lua_gettop(L) != 2 || !lua_istable(L, 1) || has_metatable(L, 1)) return call(L);
  lua_rawseti(L, 1, length(L) + 1);
  return 0;
}

/* Replaces a function of the library at the top. */
static void replace(lua_State *L, int which, lua_CFunction ours) {
  lua_getfield(L, -1, functions[which].name);
  lua_pushinteger(L, which);
  lua_pushcclosure(L, ours, WHICH);
  lua_setfield(L, -2, functions[which].name);
}

void yielding_tables(lua_State *L) {
  for (int i = 0; i < IPAIRS; i++) replace(L, i, i == INSERT ? insert : call);
}

void yielding_ipairs(lua_State *L) {
  replace(L, IPAIRS, call);
}
