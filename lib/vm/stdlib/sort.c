/* The algorithm is that of Lua's ltablib.c, step by step, so that elements that compare equal end up in the
 * same places; but it is written in Lua, where a comparison is an ordinary call, which can yield.  That costs
 * no time: a call from Lua to Lua is cheaper than one from C.
 *
 * Invariant of partition: t[lo..i) <= pivot <= t(j..up]. */
#include "vm/stdlib/yielding.h"

#include <lauxlib.h>
#include <limits.h>
#include <stdbool.h>

enum { FEW = 1000 }; /* this many plain values are sorted in far less than a time slice */

/* Upvalues of sort. */
enum { ORIGINAL = 1, SORT_PLAIN, SORT_BY, LESS };

/* A function that sorts t[lo..up]; it returns false when the order function contradicts itself.  After a very
 * uneven split, random is not 0: long ranges then take their pivot from a random place in their middle half.
 */
/* clang-format off */
#define SORTER(LESS)                                                                                         \
  "(function()\n"                                                                                            \
  "  local function sort(t, lo, up, random, less)\n"                                                         \
  "    while lo < up do\n"                                                                                   \
  "      local a, b = t[lo], t[up]\n"                                                                        \
  "      if " LESS("b", "a") " then t[lo], t[up] = b, a end\n"                                               \
  "      if up - lo == 1 then return true end\n"                                                             \
  "      local p = (lo + up) // 2\n"                                                                         \
  "      if up - lo >= 100 and random ~= 0 then\n"                                                           \
  "        local quarter = (up - lo) // 4\n"                                                                 \
  "        p = random % (2 * quarter) + lo + quarter\n"                                                      \
  "      end\n"                                                                                              \
  "      a, b = t[p], t[lo]\n"                                                                               \
  "      if " LESS("a", "b") " then t[p], t[lo] = b, a\n"                                                    \
  "      else\n"                                                                                             \
  "        b = t[up]\n"                                                                                      \
  "        if " LESS("b", "a") " then t[p], t[up] = b, a end\n"                                              \
  "      end\n"                                                                                              \
  "      if up - lo == 2 then return true end\n"                                                             \
  "      local pivot = t[p]\n"                                                                               \
  "      t[p], t[up - 1] = t[up - 1], pivot\n"                                                               \
  "      local i, j = lo + 1, up - 2\n"                                                                      \
  "      while true do\n"                                                                                    \
  "        a = t[i]\n"                                                                                       \
  "        while " LESS("a", "pivot") " do\n"                                                                \
  "          if i == up - 1 then return false end\n"                                                         \
  "          i = i + 1\n"                                                                                    \
  "          a = t[i]\n"                                                                                     \
  "        end\n"                                                                                            \
  "        b = t[j]\n"                                                                                       \
  "        while " LESS("pivot", "b") " do\n"                                                                \
  "          if j < i then return false end\n"                                                               \
  "          j = j - 1\n"                                                                                    \
  "          b = t[j]\n"                                                                                     \
  "        end\n"                                                                                            \
  "        if j < i then break end\n"                                                                        \
  "        t[i], t[j] = b, a\n"                                                                              \
  "        i, j = i + 1, j - 1\n"                                                                            \
  "      end\n"                                                                                              \
  "      t[up - 1], t[i] = a, pivot\n"                                                                       \
  "      local short\n"                                                                                      \
  "      if i - lo < up - i then\n"                                                                          \
  "        if not sort(t, lo, i - 1, random, less) then return false end\n"                                  \
  "        lo, short = i + 1, i - lo\n"                                                                      \
  "      else\n"                                                                                             \
  "        if not sort(t, i + 1, up, random, less) then return false end\n"                                  \
  "        up, short = i - 1, up - i\n"                                                                      \
  "      end\n"                                                                                              \
  "      if (up - lo) // 128 > short then random = random * 6364136223846793005 + 1442695040888963407 end\n" \
  "    end\n"                                                                                                \
  "    return true\n"                                                                                        \
  "  end\n"                                                                                                  \
  "  return sort\n"                                                                                          \
  "end)()\n"
/* clang-format on */

#define OPERATOR(a, b) a " < " b
#define CALL(a, b)     "less(" a ", " b ")"

static const char source[] = "return " SORTER(OPERATOR) ", " SORTER(CALL);

static int compared(lua_State *L, int status, lua_KContext context) {
  (void)L, (void)status, (void)context;
  return 1;
}

/* The operator <, whose metamethod is called so that it can yield. */
static int less(lua_State *L) {
  int type = lua_type(L, 1);
  bool plain = type == lua_type(L, 2) && (type == LUA_TNUMBER || type == LUA_TSTRING);
  if (plain || (luaL_getmetafield(L, 1, "__lt") == LUA_TNIL && luaL_getmetafield(L, 2, "__lt") == LUA_TNIL)) {
    lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
    return 1;
  }
  lua_insert(L, 1);
  lua_callk(L, 2, 1, 0, compared);
  return 1;
}

static int sorted(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_toboolean(L, -1) ? 0 : luaL_error(L, "invalid order function for sorting");
}

/* Do the elements compare without a call (all numbers, or all strings), with calls of __lt, or is it an
 * error? */
enum order { ORDER_PLAIN, ORDER_CALLS, ORDER_MIXED };

static enum order order_of(lua_State *L, lua_Integer n) {
  if (lua_getmetatable(L, 1)) {
    lua_pop(L, 1);
    return ORDER_CALLS;
  }
  enum order order = ORDER_PLAIN;
  int first = lua_rawgeti(L, 1, 1);
  lua_pop(L, 1);
  for (lua_Integer i = 1; i <= n; i++) {
    int type = lua_rawgeti(L, 1, i);
    lua_pop(L, 1);
    if (type == LUA_TTABLE || type == LUA_TUSERDATA) return ORDER_CALLS;
    if (type != first || (type != LUA_TNUMBER && type != LUA_TSTRING)) order = ORDER_MIXED;
  }
  return order;
}

/* The sorters are compiled on first use: most isolates never sort a long table. */
static void push_sorter(lua_State *L, int which) {
  if (lua_isnil(L, lua_upvalueindex(which))) {
    if (luaL_loadbufferx(L, source, sizeof source - 1, "=sort", "t") != LUA_OK) lua_error(L);
    lua_call(L, 0, 2);
    lua_replace(L, lua_upvalueindex(SORT_BY));
    lua_replace(L, lua_upvalueindex(SORT_PLAIN));
  }
  lua_pushvalue(L, lua_upvalueindex(which));
}

/* Sorts a table of that length.  Lua's own function sorts few plain values, and raises the errors of
 * arguments. */
static int sort_length(lua_State *L, lua_Integer n) {
  bool by = lua_isfunction(L, 2);
  if (n < 2) return 0;
  if (n >= INT_MAX) return luaL_argerror(L, 1, "array too big");
  if (!by && !lua_isnil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
  enum order order = by ? ORDER_CALLS : order_of(L, n);
  if (order == ORDER_MIXED || (order == ORDER_PLAIN && n <= FEW))
    return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
  push_sorter(L, order == ORDER_PLAIN ? SORT_PLAIN : SORT_BY);
  lua_pushvalue(L, 1);
  lua_pushinteger(L, 1);
  lua_pushinteger(L, n);
  lua_pushinteger(L, 0);
  lua_pushvalue(L, by ? 2 : lua_upvalueindex(LESS));
  lua_callk(L, 5, 1, 0, sorted);
  return sorted(L, LUA_OK, 0);
}

static int measured(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  int is_integer;
  lua_Integer n = lua_tointegerx(L, -1, &is_integer);
  if (!is_integer) return luaL_error(L, "object length is not an integer");
  lua_pop(L, 1);
  return sort_length(L, n);
}

static int sort(lua_State *L) {
  if (!lua_istable(L, 1)) return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
  lua_settop(L, 2);
  if (luaL_getmetafield(L, 1, "__len") == LUA_TNIL) return sort_length(L, (lua_Integer)lua_rawlen(L, 1));
  lua_pushvalue(L, 1);
  lua_callk(L, 1, 1, 0, measured);
  return measured(L, LUA_OK, 0);
}

void yielding_sort(lua_State *L) {
  lua_getfield(L, -1, "sort");
  lua_pushnil(L);
  lua_pushnil(L);
  lua_pushcfunction(L, less);
  lua_pushcclosure(L, sort, 4);
  lua_setfield(L, -2, "sort");
}
