/* The process language: what a green thread can do, and what it can observe. */
#include "tap.h"
#include "vm_host.h"

#include <stdlib.h>

#define LEVELS "600" /* TERM_DEPTH_MAX */

static struct host *host;

/* Runs the code and compares its output. */
static void run(const char *what, const char *code, const char *want) {
  char *got = host_run(host, code);
  is(got, want, "%s", what);
  free(got);
}

static void test_basics(void) {
  run("puts joins its values with tabs", "puts(1, 'a', nil, true, 1.5)", "1\ta\tnil\ttrue\t1.5\n");
  run("print does the same", "print('x', 2)", "x\t2\n");
  run("a process knows its pid",
      "puts(self() == self(), type(self()), tostring(self()):match('^<0%.%d+%.3>$') ~= nil)",
      "true\tuserdata\ttrue\n");
  run("a child answers",
      "local me = self()\n"
      "spawn(function(a, b) send(me, 'got', a, b) end, 1, 'two')\n"
      "puts(receive())",
      "got\t1\ttwo\n");
  run("receive times out with nil", "puts(receive(5))  puts(receive(0))", "nil\nnil\n");
  run("messages come in order", "for i = 1, 5 do send(self(), i) end for i = 1, 5 do puts(receive()) end",
      "1\n2\n3\n4\n5\n");
  run("sleep sleeps", "local t = monotonic() sleep(20) puts((monotonic() - t) // 1000000 >= 20)", "true\n");
  run("a negative timeout is refused", "puts(pcall(function() receive(-1) end))",
      "false\ttest:1: bad argument #1 to 'receive' (milliseconds expected, 0 or more)\n");
  run("an absurd timeout waits", "send_after(5, self(), 'x') puts(receive(1e300))", "x\n");
  run("endless recursion is an error",
      "local p, r = spawn_monitor(function() local function f() return 1 + f() end f() end)\n"
      "local why = select(4, receive()) puts(why[1], why[2]:match('stack overflow'))",
      "error\tstack overflow\n");
  run("an empty message has no values", "send(self()) puts(select('#', receive()))", "0\n");
}

static void test_values(void) {
  run("values come back as they went",
      "send(self(), nil, true, false, 1, -1, math.maxinteger, math.mininteger, 1.0, 1e300, 'a\\0b', '')\n"
      "puts(inspect(table.pack(receive())))",
      "{nil, true, false, 1, -1, 9223372036854775807, -9223372036854775808, 1.0, 1e+300, \"a\\x00b\", \"\", "
      "n = 11}\n");
  run("tables are copied",
      "local t = {1, 2, {a = 'b', [3] = {}}, x = self()}\n"
      "send(self(), t) local u = receive()\n"
      "puts(u ~= t, u[1], u[3].a, #u[3][3], u.x == self())",
      "true\t1\tb\t0\ttrue\n");
  run("to another isolate too",
      "local me = self()\n"
      "for i = 1, 100 do spawn(function() receive() end) end\n"
      "local p = spawn(function() while true do send(me, receive()) end end)\n"
      "send(p, {1, {2.5, 'x'}, k = {[true] = p}}, p)\n"
      "local t, q = receive()\n"
      "puts(t[1], t[2][1], t[2][2], t.k[true] == p, q == p)",
      "1\t2.5\tx\ttrue\ttrue\n");
  run("a userdata is refused with its place",
      "local f = io.open('/dev/null') puts(pcall(send, self(), 1, {a = {f}}))",
      "false\tmessage[2].a[1]: a userdata cannot be sent\n");
  run("a cycle is refused",
      "local t = {} t.t = t local ok, e = pcall(send, self(), t) puts(ok, e:match(': (.*)'))",
      "false\tnested too deep, or in a cycle\n");
  run("10,000 levels are refused",
      "local t = {} for i = 1, 10000 do t = {t} end local ok, e = pcall(send, self(), t) puts(ok, e:match(': "
      "(.*)'))",
      "false\tnested too deep, or in a cycle\n");
  run("as many levels as a term may have pass",
      "local t = {} for i = 2, " LEVELS " do t = {t} end send(self(), t) puts(#receive())", "1\n");
  run("numbers of both kinds, and what comes after them, keep their places",
      "local t = {} for i = 1, 3000 do t[i] = i % 7 == 0 and i / 2 or i * (i % 2 == 0 and -1e12 // 1 | 0 or "
      "1) end\n"
      "t[2000], t[3001] = 'x', {1} send(self(), t) local c = receive()\n"
      "for i = 1, 3000 do if c[i] ~= t[i] or math.type(c[i]) ~= math.type(t[i]) then puts(i) end end\n"
      "puts(#c, c[2000], c[3001][1])",
      "3001\tx\t1\n");
  run("a list that has lost its array is still one",
      "local t = {} for i = 9, 1, -1 do t[i] = i end t[10], t.x = 1, 1 t.x = nil send(self(), t) "
      "puts(#receive())",
      "10\n");
  run("keys beyond the border are kept",
      "local t = {1, 2, 3, 4, 5, 6, 7, 8} t[5] = nil t[6] = nil t[7] = nil t[3] = nil\n"
      "send(self(), t) local n = 0 for k, v in pairs(receive()) do n = n + (k == v and 1 or 100) end "
      "puts(n)\n"
      "t = {1, 2, nil, 4} t[1000] = 5 send(self(), t) t = receive() puts(t[1], t[2], t[3], t[4], t[1000])",
      "4\n1\t2\tnil\t4\t5\n");
  run("a list with holes keeps its length",
      "local t = {1, nil, 3} send(self(), t) t = receive() puts(#t, t[2], t[3])", "3\tnil\t3\n");
  run("nested tables whose last key is no string are written once",
      "local t = {} for i = 1, 300 do t = {a = t, b = 1, [true] = 2} end\n"
      "send(self(), t) t = receive() local n = 0 while t.a do n, t = n + 1, t.a end puts(n)",
      "300\n");
  run("a table on very many paths is copied to each place",
      "local t = {n = 7} for i = 1, 16 do t = {t, t, i = i} end send(self(), t)\n"
      "local n = 0 local function walk(t, i) if i == 0 then n = n + t.n return end\n"
      "  n = n + (t.i == i and 0 or 1e9) walk(t[1], i - 1) walk(t[2], i - 1) end\n"
      "t = receive() walk(t, 16) puts(n, t[1] ~= t[2])",
      "458752\ttrue\n");
  run("a table on very many paths is not nested deeper than allowed",
      "local t = {} for i = 1, 300 do t = {t} end for i = 1, 11 do t = {t, t} end local s = t\n"
      "for i = 1, 288 do t = {t} end puts(pcall(send, self(), t)) t = {t, s}\n"
      "puts((select(2, pcall(send, self(), {t})):gsub('.*: ', '')))",
      "true\nnested too deep, or in a cycle\n");
  run("a table with functions on many paths keeps them",
      "local n = 0 local t = {up = function() n = n + 1 return n end, pad = ('x'):rep(300)}\n"
      "for i = 1, 12 do t = {t, t} end send(self(), t) t = receive()\n"
      "local a, b = t, t for i = 1, 12 do a, b = a[1], b[2] end puts(a ~= b, a.up == b.up, a.up(), b.up())",
      "true\ttrue\t1\t2\n");
  run("a string of 100 MB passes", "send(self(), ('x'):rep(100 << 20)) puts(#receive())", "104857600\n");
  run("one beyond the limit is refused", "puts(pcall(send, self(), ('x'):rep(129 << 20)))",
      "false\tlarger than a message may be (128 MiB)\n");
}

static void test_functions(void) {
  run("a function in a message", "local n = 41 send(self(), function(x) return n + x end) puts(receive()(1))",
      "42\n");
  run("upvalues are copied, not shared",
      "local n = 0\n"
      "local function inc() n = n + 1 return n end\n"
      "inc()\n"
      "local me = self() spawn(function() send(me, inc(), inc()) end)\n"
      "puts(receive()) puts(n)",
      "2\t3\n1\n");
  run("two functions share an upvalue on the other side",
      "local n = 0\n"
      "local pair = {up = function() n = n + 1 end, get = function() return n end}\n"
      "local me = self() spawn(function() pair.up() pair.up() send(me, pair.get()) end)\n"
      "puts(receive(), n)",
      "2\t0\n");
  run("also when they are different values of a message",
      "local n = 0 local function up() n = n + 1 end local function get() return n end\n"
      "send(self(), up, get) local f, g = receive() f() f() puts(g(), n)\n"
      "send(self(), {up}, {k = {get}}, up) local f, g, h = receive() f[1]() h() puts(g.k[1](), h == f[1], "
      "n)\n"
      "send(self(), get) puts(receive()())",
      "2\t0\n2\ttrue\t0\n0\n");
  run("and each message has variables of its own",
      "local n = 0 local function up() n = n + 1 return n end\n"
      "for _ = 1, 2 do send(self(), up, up) local f, g = receive() puts(f() + g()) end",
      "3\n3\n");
  run("also tables, and among a hundred functions",
      "local t, all = {0}, {} for i = 1, 100 do all[i] = function() t[1] = t[1] + 1 return t[1] end end\n"
      "send(self(), all, function() return t[1] end) local f, g = receive()\n"
      "for i = 1, 100 do f[i]() end puts(g(), t[1])",
      "100\t0\n");
  run("a function that is spawned shares variables with its arguments",
      "local me, n = self(), 5 local function up() n = n + 1 end\n"
      "spawn(function(f) f() f() send(me, n) end, up) puts(receive(), n)\n"
      "spawn(function(list) list[1]() send(me, n) end, {up}) puts(receive(), n)",
      "7\t5\n6\t5\n");
  run("any number of levels passes in a function",
      "local list for i = 1, 100000 do list = {next = list} end local me = self()\n"
      "spawn(function() local n = 0 while list do n, list = n + 1, list.next end send(me, n) end) "
      "puts(receive())\n"
      "local f = function() return 0 end\n"
      "for i = 1, 100000 do local g = f f = function() return g, i end end\n"
      "send(self(), f) f = receive() local n, i = 0 while f ~= 0 do n, f = n + 1, f() end puts(n)",
      "100000\n100001\n");
  run("what cannot be sent is named however deep it is, by the last functions that lead to it",
      "local f = io.open('/dev/null') for i = 1, 100000 do local g = {f} f = function() return g end end\n"
      "local ok, e = pcall(spawn, f) puts(ok, e:sub(1, 60), select(2, e:gsub('the function at', '')))\n"
      "local function two() return {f} end local list = {{two}}\n"
      "f = io.open('/dev/null') puts((select(2, pcall(spawn, function() return list end))))",
      "false\tfunction[1]: the function at test:1 cannot be sent: 'g': the\t15\n"
      "function[1]: the function at test:4 cannot be sent: 'list': the function at test:3 cannot be sent: "
      "'f': "
      "a userdata cannot be sent\n");
  run("recursive and cyclic upvalues",
      "local function fact(n) return n < 2 and 1 or n * fact(n - 1) end\n"
      "local t = {} t.t = t\n"
      "local me = self() spawn(function() send(me, fact(10), t.t.t == t) end)\n"
      "puts(receive())",
      "3628800\ttrue\n");
  run("metatables of upvalues travel",
      "local C = {} C.__index = C function C:hi() return 'hi ' .. self.n end\n"
      "local o = setmetatable({n = 'x'}, C)\n"
      "local me = self() spawn(function() send(me, o:hi()) end) puts(receive())",
      "hi x\n");
  run("library functions travel by name",
      "local fmt, str, s = string.format, string, send\n"
      "local me = self() spawn(function() s(me, fmt('%03d', 7), str.rep('a', 3)) end) puts(receive())",
      "007\taaa\n");
  run("globals are the new process's own",
      "x = 1 local me = self()\n"
      "spawn(function() local before = x x = 2 send(me, before, _G.x) end) puts(receive()) puts(x)",
      "nil\t2\n1\n");
  run("many instances of one function",
      "local me = self()\n"
      "for i = 1, 200 do spawn(function() send(me, i) end) end\n"
      "local sum = 0 for i = 1, 200 do sum = sum + receive() end puts(sum)",
      "20100\n");
  run("a bad upvalue is named",
      "local f = io.open('/dev/null') local ok, e = pcall(spawn, function() return f end)\n"
      "puts(ok, e:match('function%[1%]: .*'))",
      "false\tfunction[1]: the function at test:1 cannot be sent: 'f': a userdata cannot be sent\n");
  run("a C function that is no library's is refused",
      "local ok, e = pcall(send, self(), ('x'):gmatch('x')) puts(ok, e)",
      "false\tmessage[1]: a C function cannot be sent\n");
}

static void test_match(void) {
  run("receive_match by leading values keeps the others in order",
      "send(self(), 'a', 1) send(self(), 'b', 2) send(self(), 'a', 3) send(self(), 'b', 4)\n"
      "puts(receive_match({'b'})) puts(receive_match({'a', 3})) puts(receive()) puts(receive())",
      "b\t2\na\t3\na\t1\nb\t4\n");
  run("by a predicate",
      "for i = 1, 4 do send(self(), i) end puts(receive_match(function(x) return x > 2 end)) puts(receive())",
      "3\n1\n");
  run("a predicate may wait",
      "send_after(1, self(), 'x') puts(receive_match(function(x) sleep(2) return x == 'x' end))", "x\n");
  run("numbers are compared by value, behind a common beginning",
      "send(self(), 'n', 2) send(self(), 'n', 1) send(self(), 'n', 1.0, 'second') send(self(), 'n')\n"
      "puts(receive_match({'n', 1.0})) puts(receive_match({'n', 1})) puts(receive_match({'n', 3}, 0))\n"
      "puts(receive_match({'n', {}}, 0)) puts(receive_match({nil, 1}, 0))",
      "n\t1\nn\t1.0\tsecond\nnil\nnil\nnil\n");
  run("a search through many messages goes on behind them, also after it has given way",
      "for i = 1, 300000 do send(self(), 'other', i) end send_after(20, self(), 'wanted', 1)\n"
      "puts(receive_match({'wanted'})) puts(receive())",
      "wanted\t1\nother\t1\n");
  run("it times out", "send(self(), 1) puts(receive_match({2}, 5)) puts(receive())", "nil\n1\n");
  run("it waits for what comes later",
      "local me = self() send(me, 'no')\n"
      "spawn(function() for i = 1, 3 do send(me, 'no', i) sleep(1) end send(me, 'yes') end)\n"
      "puts(receive_match({'yes'})) local n = 0 while receive(0) do n = n + 1 end puts(n)",
      "yes\n4\n");
  run("skipped messages are not looked at again",
      "local me, looks = self(), 0\n"
      "for i = 1, 1000 do send(me, 'no') end\n"
      "spawn(function() for i = 1, 100 do send(me, 'no') sleep(0) end send(me, 'yes') end)\n"
      "receive_match(function(x) looks = looks + 1 return x == 'yes' end) puts(looks)",
      "1101\n");
}

static void test_names(void) {
  run("register, whereis, send by name, unregister",
      "puts(register('n1', self()), whereis('n1') == self()) send('n1', 'hello') puts(receive())\n"
      "puts(inspect(registered())) puts(unregister('n1'), whereis('n1'))",
      "true\ttrue\nhello\n{\"n1\"}\ntrue\tnil\n");
  run("a name goes as its process ends",
      "local p, ref = spawn_monitor(function() register('n2', self()) send(receive(), 'ok') end)\n"
      "send(p, self()) receive() receive_match({'DOWN'}) puts(whereis('n2'))",
      "nil\n");
  run("a name is had once", "register('n3', self()) local ok, e = pcall(register, 'n3', self()) puts(ok, e)",
      "false\tthe name 'n3' cannot be registered: the name is taken\n");
  run("sending to nobody's name is an error", "puts(pcall(send, 'nobody', 1))",
      "false\tno process has the name 'nobody'\n");
  run("a dead process cannot be named",
      "local p, ref = spawn_monitor(function() end) receive() puts((pcall(register, 'n4', p)), "
      "whereis('n4'))",
      "false\tnil\n");
  run("bad names are refused", "puts((pcall(register, 'a b', self())))", "false\n");
  run("global names",
      "puts(global.register_name('g', self()), global.whereis_name('g') == self())\n"
      "puts(global.register_name('g', self())) puts(global.send('g', 'x') == self(), receive())\n"
      "puts(inspect(global.registered_names()), global.unregister_name('g'), global.whereis_name('g'))\n"
      "puts(pcall(global.send, 'g', 1))",
      "true\ttrue\nfalse\ntrue\tx\n{\"g\"}\ttrue\tnil\nfalse\tno process has the global name 'g'\n");
  run("send to {name, node}",
      "register('n5', self()) send({'n5', node.self()}, 'here') puts(receive())\n"
      "puts(send({'nobody', node.self()}, 1))",
      "here\n\n");
}

static void test_nodes(void) {
  run("node.self and node.list", "puts(node.self(), inspect(node.list()))", "near@here\t{\"far@there\"}\n");
  run("node.connect", "puts(node.connect('far@there')) puts(node.connect('x@y'))",
      "true\nfalse\tthe host name cannot be resolved\n");
  run("a call's failure is an error", "puts(pcall(node.spawn, 'x@y', function() end))",
      "false\tthe host name cannot be resolved\n");
  run("node.spawn on this node",
      "local me = self() node.spawn(node.self(), function(x) send(me, x) end, 5) puts(receive())", "5\n");
  run("pcall around a call", "puts(pcall(node.ping, 'x@y'))",
      "true\tnil\tthe test host does not know this\n");
}

static void test_time(void) {
  run("send_after and cancel_timer",
      "local r = send_after(5, self(), 'late', 1) local c = send_after(5000, self(), 'never')\n"
      "local left = cancel_timer(c) puts(left > 4000, cancel_timer(c)) puts(receive()) puts(cancel_timer(r))",
      "true\tfalse\nlate\t1\nfalse\n");
  run("a timer that was set in another isolate can be cancelled",
      "local me = self() local function set(ms) send(me, send_after(ms, me, 'late')) sleep(20) end\n"
      "for i = 1, 8 do spawn(set, 60000) end\n"
      "for i = 1, 8 do local ref = receive() local left = cancel_timer(ref)\n"
      "  if not (left > 50000 and left <= 60000 and not cancel_timer(ref)) then puts('wrong', left) end end\n"
      "spawn(set, 0) spawn(set, 0)\n"
      "for i = 1, 2 do local ref = receive_match(function(x) return x ~= 'late' end)\n"
      "  receive_match{'late'} puts(cancel_timer(ref)) end",
      "false\nfalse\n");
  run("to a name, resolved then", "send_after(5, 'later', 'x') register('later', self()) puts(receive())",
      "x\n");
  run("timers fire in order",
      "for _, ms in ipairs{15, 5, 10} do send_after(ms, self(), ms) end puts(receive(), (receive()), "
      "(receive()))",
      "5\t10\t15\n");
}

static void test_inspect(void) {
  run("inspect", "puts(inspect({1, 'a\\n', {x = 1, ['y z'] = 2.0}, [10] = false, f = 0/1}))",
      "{1, \"a\\n\", {x = 1, [\"y z\"] = 2.0}, [10] = false, f = 0.0}\n");
  run("inspect of a cycle", "local t = {} t[1] = t puts(inspect(t))", "{{cycle}}\n");
  run("inspect sorts many keys, numbers before words",
      "local t = {} for i = 1, 400 do t[i * 7919 % 1009 + 5000], t['k' .. i * 7919 % 1009 + 1000] = 0, 0 "
      "end\n"
      "local s, last, n = inspect(t), '', 0\n"
      "for k in s:gmatch('%[(%d+)%]') do n = n + 1 assert(k > last) last = k end\n"
      "last = '' for k in s:gmatch('(k%d+) =') do n = n + 1 assert(k > last) last = k end\n"
      "puts(n, (s:find('k')) > s:find('%][^%]]*$'))",
      "800\ttrue\n");
  run("inspect looks at a bounded number of entries",
      "local l, t = {}, {} for i = 1, 100000 do l[i] = 0 end for i = 1, 1000 do t[i] = l end\n"
      "local s = inspect(t) puts(s:sub(1, 4), s:sub(-3) == '…')",
      "{{0,\tfalse\n");
  run("process_info of a deep stack tells its outermost function",
      "local me = self()\n"
      "local deep = spawn(function() local function f(n)\n"
      "if n == 0 then send(me, 'deep') receive() return 0 end return 1 + f(n - 1) end f(150000) end)\n"
      "receive() puts(process_info(deep).what) exit(deep, 'kill')",
      "test:2\n");
  run("a crowd of timers that are due at once all fire",
      "local n, last = 3000, 0 for i = 1, n do send_after(1, self(), i) end\n"
      "for i = 1, n do local k = receive() assert(k > 0 and k <= n) last = last + k end puts(last)",
      "4501500\n");
  run("inspect of deep tables ends", "local t = {} for i = 1, 20 do t = {t} end puts(inspect(t))",
      "{{{{{{{{{…}}}}}}}}}\n");
}

static void test_spawning(void) {
  char why[256];
  ok(host_spawn(host, "x = = 1", NULL, why) == NPID_NONE, "code that does not compile is refused");
  is(why, "code: test:1: unexpected symbol near '='", "with file and line");
  ok(host_spawn(host, "\033Lua", NULL, why) == NPID_NONE, "bytecode is refused");
  run("load takes text only", "puts(load(string.char(27) .. 'Lua'))",
      "nil\tattempt to load a binary chunk (mode is 't')\n");
  run("load has the process's globals", "x = 7 puts(load('return x')())", "7\n");
  run("a missing module says where it looked",
      "local ok, e = pcall(require, 'no.such') puts(ok, e:gsub('\\n\\t', '; '))",
      "false\tmodule 'no.such' not found:; no file '/tmp/no/such.lua'; no file '/tmp/no/such/init.lua'\t2\n");
}

/* On a host whose table of global names has not all of them. */
static void test_asked_names(void) {
  host = host_new_with(&(struct vm_config){
      .schedulers = 2, .heap_max = (size_t)1 << 30, .path = "/tmp\0", .asks_names = true});
  run("a global name that the table lacks is asked for",
      "register('w', self()) puts(global.whereis_name('w') == self(), global.token('w'))", "true\t9\n");
  run("nobody may have it", "puts(global.whereis_name('none'), global.token('none'))", "nil\tnil\n");
  run("a text that is no name is not asked for", "puts(global.whereis_name('a b'), global.token(''))",
      "nil\tnil\n");
  run("a message to it is sent when the answer is there",
      "register('v', self()) puts(global.send('v', 'hi', 2) == self(), receive())", "true\thi\t2\n");
  run("or is an error", "puts((select(2, pcall(global.send, 'none', 1)):gsub('^test:1: ', '')))",
      "no process has the global name 'none'\n");
  run("a name in the table is not asked for",
      "global.register_name('t', self()) puts(global.whereis_name('t') == self(), global.token('t'))",
      "true\t1\n");
  host_free(host);
}

int main(void) {
  host = host_new(2, (size_t)1 << 30, "/tmp\0");
  test_basics();
  test_values();
  test_functions();
  test_match();
  test_names();
  test_nodes();
  test_time();
  test_inspect();
  test_spawning();
  host_free(host);
  test_asked_names();
  return tap_end();
}
