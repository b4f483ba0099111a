/* Suspendable versions of Lua's own functions: they return what Lua's return, and can be suspended. */
#include "tap.h"
#include "vm_host.h"

#include <lua.h>
#include <stdio.h>
#include <stdlib.h>

static struct host *host;

static void run(const char *what, const char *code, const char *want) {
  char *got = host_run(host, code);
  is(got, want, "%s", what);
  free(got);
}

/* --- patterns ---------------------------------------------------------------------------------------------
 * The padding before the subject makes it too long for Lua's own matcher. */

#define LONG "local pad = ('.'):rep(200000) local s = pad .. "

static void test_find(void) {
  run("find, with captures and positions", LONG "'key = value' puts(s:find('(%a+) = ()(%a+)'))",
      "200001\t200011\tkey\t200007\tvalue\n");
  run("find from a place, from the end, and beyond it",
      LONG "'abcabc' puts(s:find('a.c', 200002)) puts((s:find('b+', -2))) puts(s:find('a', 300000))",
      "200004\t200006\n200005\nnil\n");
  run("match: the whole, captures, nothing",
      LONG "'ab12' puts(s:match('%d+'), s:match('(%a)(%d)'), s:match('x-y'))", "12\tb\tnil\n");
  run("greedy, lazy and optional items go back",
      LONG "'<<a>><b>' puts(s:match('<(.*)>'), s:match('<(.-)>'), s:match('a?b?>>'), s:match('<%l?b?>$'))",
      "<a>><b\t<a\ta>>\t<b>\n");
  run("sets, balance, frontier, back references",
      LONG "'f(a(b)c) THE end [x] aa' puts(s:match('%b()'), s:match('%f[%a]%u+%f[%A]'), s:match('[]x[]+'), "
           "s:match('(%l)%1'))",
      "(a(b)c)\tTHE\t[x]\ta\n");
  run("an anchor holds", LONG "'x' puts(s:find('^%.*x$')) puts(s:find('^x.*$'))", "1\t200001\nnil\n");
  run("bytes that are zero",
      "local s = ('\\0'):rep(200000) .. 'x\\0y' puts(s:find('x%z-y'), s:find('[^\\0]'))",
      "200001\t200001\t200001\n");
  run("plain text is not a pattern",
      LONG "'a.b' puts(s:find('a.b', 1, true), s:find('a+b', 1, true), s:find(''))", "200001\tnil\t1\t0\n");
  run("gmatch, with empty matches",
      LONG "'' local t = {} for w in ('ab cd ' .. s):gmatch('%a*') do t[#t + 1] = w "
           "if #t == 5 then break end end puts(table.concat(t, ','))",
      "ab,cd,,,\n");
  run("gmatch of pairs, and from a place",
      LONG "'a=1, b=2' for k, v in s:gmatch('(%w)=(%w)') do puts(k, v) end "
           "for k in s:gmatch('%w', 200004) do puts(k) end puts(s:gmatch('.', 300000)())",
      "a\t1\nb\t2\nb\n2\n\n");
}

static void test_pattern_errors(void) {
  static const char *const patterns[][2] = {
      {"'%'", "malformed pattern (ends with '%')"},
      {"'[a'", "malformed pattern (missing ']')"},
      {"'%b'", "malformed pattern (missing arguments to '%b')"},
      {"'%f'", "missing '[' after '%f' in pattern"},
      {"'%1'", "invalid capture index %1"},
      {"')'", "invalid pattern capture"},
      {"'(.'", "unfinished capture"},
      {"('()'):rep(33)", "too many captures"},
  };
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
    char code[256], want[128];
    snprintf(code, sizeof code, LONG "'' puts(select(2, pcall(function() s:find('.*' .. %s) end)))",
             patterns[i][0]);
    snprintf(want, sizeof want, "test:1: %s\n", patterns[i][1]);
    run(patterns[i][1], code, want);
  }
}

static void test_gsub(void) {
  run("gsub by text", LONG "'a=1' local r, n = s:gsub('(%w)=(%w)', '%2=%1%%%0') puts(r:sub(200001), n)",
      "1=a%a=1\t1\n");
  run("gsub by a table and by a function",
      LONG
      "'a b' local r = s:gsub('%a', {a = 'x'}):gsub('%a', function(c) return c:upper() end) puts(r:sub(-3))",
      "X B\n");
  run("gsub with a limit, an anchor, and nothing to find",
      LONG
      "'' puts(select(2, s:gsub('%.', '', 3)), select(2, s:gsub('^%.', '')), select(2, s:gsub('x+', '')), "
      "s:gsub('x+', '') == s)",
      "3\t1\t0\ttrue\n");
  run("gsub of empty matches", LONG "'' local r, n = ('ab' .. s):gsub('x*', '-') puts(r:sub(1, 6), n)",
      "-a-b-.\t200003\n");
  run("what is wrong with a replacement",
      LONG "'' puts(pcall(string.gsub, s, '.', '%2')) puts(pcall(string.gsub, s, '.', '%x'))",
      "false\tinvalid capture index %2\nfalse\tinvalid use of '%' in replacement string\n");
}

/* --- tables --------------------------------------------------------------------------------------------- */

/* An empty table whose metamethods read a real one, and wait while they do. */
#define PROXY                                                                                                \
  "local function proxy(real) return setmetatable({}, {\n"                                                   \
  "  __index = function(_, k) sleep(0) return real[k] end, __len = function() sleep(0) return #real end,\n"  \
  "  __newindex = function(_, k, v) sleep(0) real[k] = v end}) end\n"

static void test_tables(void) {
  run("concat through metamethods that wait",
      PROXY "puts(table.concat(proxy{1, 'b', 3}), table.concat(proxy{1, 2, 3}, ', ', 2, 3), "
            "#table.concat(proxy{}))",
      "1b3\t2, 3\t0\n");
  run("insert and remove",
      PROXY "local t = {1, 2} local p = proxy(t) table.insert(p, 3) table.insert(p, 1, 0)\n"
            "puts(inspect(t), table.remove(p), table.remove(p, 1), inspect(t), table.remove(proxy{}))",
      "{0, 1, 2, 3}\t3\t0\t{1, 2}\tnil\n");
  run("move, unpack and ipairs",
      PROXY
      "local t = {1, 2, 3} table.move(proxy(t), 1, 3, 2) puts(inspect(t), table.unpack(proxy{1, 2, 3}, 2))\n"
      "puts(inspect(table.move(proxy{1, 2}, 1, 2, 1, {}))) for i, v in ipairs(proxy{'a'}) do puts(i, v) end",
      "{1, 1, 2, 3}\t2\t3\n{1, 2}\n1\ta\n");
  run("long plain ones",
      "local t = {} for i = 1, 5000 do t[i] = i end table.insert(t, 1, 0) puts(t[1], t[5001], "
      "table.remove(t, 1))\n"
      "local c = table.concat(t, ',') puts(#c, c:sub(1, 5), c:sub(-9), #table.concat(t))\n"
      "table.move(t, 1, 5000, 2) puts(t[1], t[2], t[5001]) table.move(t, 2, 5001, 1) puts(t[1], t[5000])",
      "0\t5000\t0\n23892\t1,2,3\t4999,5000\t18893\n1\t1\t5000\n1\t5000\n");
  static const char *const wrong[][2] = {
      {"table.concat(proxy{{}})", "invalid value (table) at index 1 in table for 'concat'"},
      {"table.concat(proxy{}, {})", "bad argument #2 to 'concat' (string expected, got table)"},
      {"table.insert(proxy{}, 3, 1)", "bad argument #2 to 'insert' (position out of bounds)"},
      {"table.insert(proxy{}, 'x', 1)", "bad argument #2 to 'insert' (number expected, got string)"},
      {"table.insert(proxy{})", "wrong number of arguments to 'insert'"},
      {"table.remove(proxy{1}, 3)", "bad argument #2 to 'remove' (position out of bounds)"},
      {"table.insert(setmetatable({}, {__len = function() return 'x' end}), 1)",
       "object length is not an integer"},
      {"table.unpack(proxy{}, 1, 1e8)", "too many results to unpack"},
      {"table.move(proxy{}, 1, math.maxinteger, 2)", "bad argument #4 to 'move' (destination wrap around)"},
      {"table.insert(5, 1)", "bad argument #1 to 'insert' (table expected, got number)"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char code[1024], want[128];
    snprintf(code, sizeof code, PROXY "puts(select(2, pcall(function() %s end)))", wrong[i][0]);
    snprintf(want, sizeof want, "test:4: %s\n", wrong[i][1]);
    run(wrong[i][0], code, want);
  }
}

/* --- text and xpcall ------------------------------------------------------------------------------------ */

#define SLOW                                                                                                 \
  "local slow = setmetatable({}, {__tostring = function() sleep(1) return receive(0) or 'slow' end})\n"      \
  "local bad = setmetatable({}, {__tostring = function() return {} end})\n"

static void test_text(void) {
  run("format of many tables takes linear time, and gives way",
      "local t = {} for i = 1, 100000 do t[i] = {} end local f = ('%s'):rep(#t) local at = monotonic()\n"
      "local s = f:format(table.unpack(t)) puts(#s > 1000000, monotonic() - at < 30e9)",
      "true\ttrue\n");
  run("tostring, puts and format with a __tostring that waits",
      SLOW "send(self(), 'first') puts(tostring(slow), slow, 1) puts(('%d %s|%5s|%%|%s'):format(7, slow, "
           "slow, nil))",
      "first\tslow\t1\n7 slow| slow|%|nil\n");
  run("to another leader, too", SLOW "puts(self(), slow, 2) print(select(3, receive()))", "slow\t2\n\n");
  run("only a %s asks for it",
      SLOW "puts(pcall(string.format, '%d', slow)) puts(('%q'):format('x'), #('%p'):format(slow) > 2)",
      "false\tbad argument #2 to 'string.format' (number expected, got table)\n\"x\"\ttrue\n");
  run("one that returns no string",
      SLOW "puts(pcall(tostring, bad)) puts(pcall(puts, bad)) puts(pcall(string.format, '%s', bad))",
      "false\t'__tostring' must return a string\nfalse\t'__tostring' must return a string\n"
      "false\t'__tostring' must return a string\n");
  run("a __name and no __tostring", "puts((tostring(setmetatable({}, {__name = 'My'})):gsub('0x.*', '')))",
      "My: \n");
  run("xpcall: results, and arguments", "puts(xpcall(function(...) return ... end, print, 1, nil, 3))",
      "true\t1\tnil\t3\n");
  run("xpcall: its handler may wait", "puts(xpcall(error, function(e) sleep(1) return e .. '!' end, 'x'))",
      "false\tx!\n");
  run("xpcall: a handler that fails", "puts(xpcall(error, function() error('worse', 0) end, 'x'))",
      "false\terror in error handling\n");
  run("xpcall: a handler that fails once gets its own error",
      "local n = 0 puts(xpcall(error, function(e) n = n + 1 if n == 1 then error('second', 0) end return e "
      ".. n "
      "end, 'x'))",
      "false\tsecond2\n");
  run("xpcall wants a handler", "puts(pcall(function() xpcall(print) end))",
      "false\ttest:1: bad argument #2 to 'xpcall' (function expected, got no value)\n");
  run("nothing, very often", "puts(#(''):rep(1e18), #(''):rep(3, ','))", "0\t2\n");
}

#if LUA_VERSION_RELEASE_NUM > LUA_VERSION_NUM * 100 + 4 || !defined LUA_IS_CHECKED
/* A __concat that makes the stack move, as it calls functions: each process begins with a small stack, and
 * each depth lets it grow at another place. */
static void test_concat(void) {
  static const char moved[] =
      "local me, bad = self(), 0\n"
      "local function deep(n) if n == 0 then return 0 end return 1 + deep(n - 1) end\n"
      "for d = 1, 120 do\n"
      "  spawn(function()\n"
      "    local mt = {}\n"
      "    function mt.__concat(a, b)\n"
      "      %s\n"
      "      return (type(a) == 'table' and a.v or a) .. (type(b) == 'table' and b.v or b)\n"
      "    end\n"
      "    local function new(v) return setmetatable({v = v}, mt) end\n"
      "    local x, y, before, n = new('<x>'), new('<y>'), 'before', 1\n"
      "    local s = 'a' .. 'b' .. x .. 'c' .. 1 .. y\n"
      "    local ok, t = pcall(function() return x .. y .. 'z' .. x end)\n"
      "    for i = 1, 20 do n = n + #(x .. i) end\n"
      "    send(me, s .. t .. n .. before)\n"
      "  end)\n"
      "  local got = receive(20000)\n"
      "  if got ~= 'ab<x>c1<y><x><y>z<x>92before' then bad = bad + 1 end\n"
      "end puts(bad)";
  static const char concatenates[] =
      "if n then local q = setmetatable({v = ''}, {__concat = function() return deep(d) end}) n = n + #(q .. "
      "'') * 0 end";
  static const char *const bodies[] = {
      "deep(d)",
      "deep(d) sleep(0) deep(d * 2)",
      "pcall(function() deep(d) error('x') end)",
      concatenates,
      "for i = 1, 50 do local t = {} end deep(d)",
  };
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
    char code[2048];
    snprintf(code, sizeof code, moved, bodies[i]);
    run(bodies[i], code, "0\n");
  }
  run("where a function cannot wait, a __concat that moves the stack is an error",
      "local me = self() local function deep(n) if n == 0 then return 0 end return 1 + deep(n - 1) end\n"
      "local o = setmetatable({}, {__concat = function() deep(500) return 'return 1' end})\n"
      "local function source() local all = o and o .. 'x' o = nil return all end\n"
      "spawn(function() send(me, pcall(load, source)) end)\n"
      "local ok, _, why = receive() puts(ok, why)",
#if LUA_VERSION_RELEASE_NUM > 50404
      "true\tnil\n"
#else
      "true\tLua 5.4.4 cannot call __concat here: a callback of a C function runs\n"
#endif
  );
}
#endif

int main(void) {
  host = host_new(2, (size_t)32 << 20, NULL);
#if LUA_VERSION_RELEASE_NUM > LUA_VERSION_NUM * 100 + 4 || !defined LUA_IS_CHECKED
  test_concat();
#endif
  test_find();
  test_pattern_errors();
  test_gsub();
  test_tables();
  test_text();
  host_free(host);
  return tap_end();
}
