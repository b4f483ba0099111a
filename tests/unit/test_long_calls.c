/* Functions of the library on long arguments: they return what Lua's own functions return, and give way while
 * they work.  Here a hook is always set, as it is for a process whose time slice is over, so they yield
 * wherever they can: the number of yields shows that no long work is done in one piece. */
#include "tap.h"
#include "vm/stdlib/yielding.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What each chunk may use: rnd(n), a number below n from a seeded sequence; bytes(n, set), n characters of a
 * set; sum(...), a digest of all its arguments. */
static const char prelude[] =
    "local seed = 42\n"
    "function rnd(n) seed = (seed * 6364136223846793005 + 1442695040888963407) return (seed >> 33) % n end\n"
    "function bytes(n, set)\n"
    "  local t = {}\n"
    "  for i = 1, n do local k = rnd(#set) + 1 t[i] = set:sub(k, k) end\n"
    "  return table.concat(t)\n"
    "end\n"
    "local function one(v)\n"
    "  if type(v) ~= 'string' then return tostring(v) end\n"
    "  local h = 0\n"
    "  for i = 1, #v do h = (h * 31 + v:byte(i)) % 1000000007 end\n"
    "  return #v .. ':' .. h\n"
    "end\n"
    "function sum(...)\n"
    "  local t = table.pack(...)\n"
    "  for i = 1, t.n do t[i] = one(t[i]) end\n"
    "  return table.concat(t, ' ')\n"
    "end\n";

enum { HOOK = 20 };

static void give_way(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (lua_isyieldable(L)) lua_yield(L, 0);
}

static void change(lua_State *L, const char *library, void (*how)(lua_State *)) {
  lua_getglobal(L, library);
  how(L);
  lua_pop(L, 1);
}

static lua_State *new_state(bool ours) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (ours) {
    void (*const strings[])(lua_State *) = {yielding_strings, yielding_find, yielding_gsub, yielding_format};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) change(L, "string", strings[i]);
    change(L, "table", yielding_sort);
    change(L, "table", yielding_tables);
    change(L, "utf8", yielding_len);
    change(L, "utf8", yielding_offset);
    change(L, "os", yielding_os);
  }
  if (luaL_dostring(L, prelude)) printf("# %s\n", lua_tostring(L, -1));
  return L;
}

/* Calls the function at the top of co, which has nargs arguments, and counts how often it yields.  Leaves
 * true and its results, or false and the error, in co. */
static int resume(lua_State *L, lua_State *co, int nargs) {
  int results, status, yields = -1;
  do {
    lua_sethook(co, give_way, LUA_MASKCOUNT, HOOK);
    status = lua_resume(co, L, nargs, &results);
    if (status == LUA_YIELD) lua_pop(co, results);
    nargs = 0;
    yields++;
  } while (status == LUA_YIELD);
  lua_sethook(co, NULL, 0, 0);
  return yields;
}

/* Runs `make`, whose results are the arguments of `call`, in a new state, and then `call` in a coroutine.
 * Writes a digest of the results, or the error, to out; returns how often the call has yielded. */
static int run(bool ours, const char *make, const char *call, char out[static 400]) {
  lua_State *L = new_state(ours), *co = lua_newthread(L);
  char chunk[1000];
  snprintf(chunk, sizeof chunk,
           "local pcall = pcall return function(...) return pcall(function(...) %s end, ...) end", call);
  int yields = 0;
  bool made = luaL_dostring(L, chunk) == LUA_OK && luaL_dostring(L, make) == LUA_OK;
  if (made) {
    int nargs = lua_gettop(L) - 2;
    lua_xmove(L, co, nargs + 1);
    yields = resume(L, co, nargs);
    lua_getglobal(L, "sum");
    int results = lua_gettop(co);
    lua_xmove(co, L, results);
    made = lua_pcall(L, results, 1, 0) == LUA_OK;
  }
  if (!made) printf("# %s\n", lua_tostring(L, -1));
  snprintf(out, 400, "%s", lua_tostring(L, -1));
  lua_close(L);
  return yields;
}

static void same(const char *what, const char *make, const char *call, int least) {
  char got[400], want[400];
  run(false, make, call, want);
  int yields = run(true, make, call, got);
  is(got, want, "%s", what);
  ok(yields >= least, "%s: gives way %d times at least (%d)", what, least, yields);
}

#define TEXT "local s = bytes(200000, 'abcXYZ \\0\\1\\200\\n\"\\\\9') "
#define MANY                                                                                                 \
  "local t = {} for i = 1, 30000 do t[i] = i % 7 == 0 and i / 8 or i % 5 == 0 and ('x'):rep(i % 100) or -i " \
  "end "

static void test_strings(void) {
  same("upper", TEXT "return s", "return string.upper(...)", 3);
  same("lower", TEXT "return s", "return string.lower(...)", 3);
  same("reverse", TEXT "return s", "return string.reverse(...)", 3);
  same("upper of a short string", "return 'abc'", "return string.upper(...)", 0);
  same("sub", TEXT "return s",
       "local s = ... return s:sub(3), s:sub(-150000, -2), s:sub(0), s:sub(7, 6), "
       "s:sub(100, 100000), s:sub(math.mininteger, math.maxinteger), (5):rep(3):sub(2)",
       6);
  same("sub: errors", "return 'x'",
       "return pcall(string.sub, 'x'), pcall(string.sub, 'x', {}), pcall(string.sub)", 0);
  same("rep of one byte", "return 'a', 200001", "return string.rep(...)", 3);
  same("rep of some", "return 'abc', 100001, ', '", "return string.rep(...)", 7);
  same("rep of a long string", TEXT "return s, 3, s:sub(1, 70000)", "return string.rep(...)", 11);
  same("rep of a separator", "return '', 100000, 'xy'", "return string.rep(...)", 3);
  same("rep: few, none, errors", "return 'ab'",
       "local s = ... return s:rep(3, '-'), s:rep(0), s:rep(-1, '-'), "
       "s:rep(1), pcall(string.rep, s, 1 << 62), pcall(string.rep, s, 'x'), (7):rep(2, 0)",
       0);
}

static void test_search(void) {
  same("find plain text at the end", TEXT "return s .. 'end', 'end', 1, true", "return string.find(...)", 0);
  same("find plain text that is not there", "return ('ab'):rep(1000000), 'aa'", "return string.find(...)", 5);
  same("find a long text", TEXT "return s .. s:sub(1, 150000) .. 'x' .. s, s:sub(1, 150000) .. 'x', 1, true",
       "return string.find(...)", 1);
  same("find a long text that nearly is there", TEXT "return s .. s, s .. 'x', 1, true",
       "return string.find(...)", 0);
  same("find: edges", "return ('x'):rep(70000)",
       "local s = ... return s:find('', 1, true), s:find('', 70001, true), "
       "s:find('', 70002, true), s:find(s, 1, true), s:find(s .. 'x', 1, true), s:find('x', -1, true), "
       "s:find('x', 70000, true), ('').find('', '')",
       0);
  same("gsub of many matches", TEXT "return s, '[aX]', '<%0>'", "return string.gsub(...)", 3);
  same("gsub of few matches", TEXT "return s .. '#' .. s, '#', '%0%0'", "return string.gsub(...)", 3);
  same("gsub with a table, a limit", TEXT "return s, '%a', {a = 'A', b = 5, c = false}, 50000",
       "return string.gsub(...)", 3);
  same("gsub with a function", TEXT "return s, '%a%a', function(x) return x:rep(3) end",
       "return string.gsub(...)", 3);
  same("gsub of nothing", TEXT "return s, 'nothing', ''", "return string.gsub(...)", 3);
}

static void test_format(void) {
  same("%q of a long string", TEXT "return '%q', s", "return string.format(...)", 6);
  same("%s of a long string", TEXT "return '<%s|%-20s|%5d|%%|%q>', s, s:gsub('%z', ''), 42, 'x'",
       "local f, a, b, _, n, q = ... return string.format(f, a, b, n, q)", 6);
  same("a long format", TEXT "return s:gsub('%z', '') .. '%d' .. ('%s'):rep(100), 7",
       "local f = ... f = f:gsub('%%%%', '') "
       "local t = {} for i = 1, 100 do t[i] = i end return f:format(7, table.unpack(t))",
       3);
  same("format: errors", TEXT "return s",
       "local s = ... "
       "local function why(...) return (select(2, pcall(string.format, ...)):gsub(\"'[%w.?]+' \", '')) end "
       "return why('%s%d', s, 'x'), why('%s%d', s), why('%10q', s), why('%s%y', s, 1), why('%20s', s), "
       "why('%s%' .. ('0'):rep(40), s, 1)",
       0);
  same("os.date of a long format", "return ('%Y-%m-%d %H:%M:%S %Ey %Od %% x! *t '):rep(3000), 1e9",
       "return os.date(...)", 3);
  same("os.date in UTC", "return '!' .. ('%c!%j'):rep(20000), 86400 * 365", "return os.date(...)", 3);
  same("os.date: errors", "return ('%H '):rep(30000) .. '%Ez'",
       "local f = ... "
       "return (select(2, pcall(os.date, f, 0)):gsub('^.*%(', '')), pcall(os.date, '%Ez')",
       0);
}

static void test_utf8(void) {
  same("utf8.len", "local s = ('aä€😀'):rep(40000) return s",
       "local s = ... return utf8.len(s), utf8.len(s, 4), "
       "utf8.len(s, -100000), utf8.len(s, 2, 100), utf8.len(s, 3, 200001), utf8.len(s, #s + 1)",
       6);
  same("utf8.len of what is no UTF-8", "return ('aä€😀'):rep(30000)",
       "local s = ... "
       "return utf8.len(s .. '\\x80'), utf8.len(s .. ('\\x80'):rep(100) .. s), utf8.len(s .. '\\xff' .. s), "
       "utf8.len(s .. '\\u{7fffffff}', 1, -1, true), utf8.len(s, 1, -2), pcall(utf8.len, s, 0), "
       "pcall(utf8.len, s, 1, 1e9), pcall(utf8.len, s, {})",
       6);
  same("utf8.offset", "return ('aä€😀'):rep(40000)",
       "local s = ... return utf8.offset(s, 100000), "
       "utf8.offset(s, 160001), utf8.offset(s, 160002), utf8.offset(s, -1), utf8.offset(s, -159999), "
       "utf8.offset(s, -160000), utf8.offset(s, -160001), utf8.offset(s, 5, 11), utf8.offset(s, 0, 9), "
       "pcall(utf8.offset, s, 1, 3), pcall(utf8.offset, s, 1, 1e9), utf8.offset(s, 2, -4)",
       4);
  same("utf8.offset of trailing bytes", "return ('\\x80'):rep(100000) .. 'a'",
       "local s = ... "
       "return utf8.offset(s, -1), utf8.offset(s, -2), utf8.offset(s, -3), pcall(utf8.offset, s, 1)",
       1);
}

static void test_concat(void) {
  same("concat of many", MANY "return t, ', '", "return table.concat(...)", 20);
  same("concat without a separator", MANY "return t", "return table.concat(...)", 20);
  same("concat of long strings", TEXT "return {s, 5, s, '', s, 1.5, ''}, s:sub(1, 66000)",
       "return table.concat(...)", 6);
  same("concat of a range", MANY "return t, 7, 100, 29000", "return table.concat(...)", 20);
  same("concat: errors", MANY "t[29999] = {} return t, ','", "return pcall(table.concat, ...)", 1);
  same("concat: odd ranges", TEXT "return {[math.maxinteger] = s, [0] = s, [-1] = 5}",
       "local t = ... "
       "return table.concat(t, '-', math.maxinteger, math.maxinteger), table.concat(t, '-', -1, 0), "
       "table.concat(t, '-', 5, 4), pcall(table.concat, t, '-', math.maxinteger - 1, math.maxinteger), "
       "pcall(table.concat, t, {}), pcall(table.concat, t, '', {})",
       3);
}

/* What cannot give way is bounded, with an error that says so. */
static void test_bounds(void) {
  char got[400];
  run(true, "return (' '):rep(262145), ('x'):rep(250001), {}",
      "local f, s, t = ... for i = 1, 250001 do t[i] = i end\n"
      "local function fails(why, ...) local ok, e = pcall(...) return not ok and e:find(why, 1, true) ~= nil "
      "end\n"
      "return fails('262144 bytes', string.pack, f), fails('262144 bytes', string.packsize, f), "
      "fails('262144 bytes', string.unpack, f, ''), fails('slice too long', string.byte, s, 1, -1), "
      "fails('slice too long', utf8.codepoint, s, 1, -1), fails('too many results', table.unpack, t)",
      got);
  is(got, "true true true true true true true",
     "beyond the bounds of formats and of results there are errors");
  run(true, "return (' '):rep(262144), ('x'):rep(250000), {}",
      "local f, s, t = ... for i = 1, 250000 do t[i] = i end\n"
      "return f:packsize(), select('#', s:byte(1, -1)), select('#', table.unpack(t))",
      got);
  is(got, "true 0 250000 250000", "at the bounds there are none");
}

/* Memory that cannot be had is an error, and the call leaves nothing behind. */
static void test_memory(void) {
  static const char call[] =
      "local s = ('x'):rep(1000000) local n = 0 for i = 1, 400 do s:upper() s:rep(2) end "
      "collectgarbage() return collectgarbage('count') < 20000";
  char got[400];
  run(true, "", call, got);
  is(got, "true true", "what long calls have made is collected");
}

int main(void) {
  test_strings();
  test_search();
  test_format();
  test_utf8();
  test_concat();
  test_bounds();
  test_memory();
  return tap_end();
}
