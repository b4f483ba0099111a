/* Long messages: they arrive as they were, and others run while they are copied. */
#include "tap.h"
#include "vm_host.h"

#include <stdlib.h>

static struct host *host;

static void run(const char *what, const char *code, const char *want) {
  char *got = host_run(host, code);
  is(got, want, "%s", what);
  free(got);
}

/* What each program may use. */
#define PRELUDE                                                                                              \
  "local function digest(v)\n"                                                                               \
  "  if type(v) == 'string' then return #v + v:byte(1) * 7 + v:byte(#v // 2 + 1) * 3 + v:byte(-1) end\n"     \
  "  if type(v) == 'number' then return v end\n"                                                             \
  "  if type(v) ~= 'table' then return 5 end\n"                                                              \
  "  local sum = #v\n"                                                                                       \
  "  for k, x in pairs(v) do sum = sum + digest(k) % 1009 * 3 + digest(x) % 1013 end\n"                      \
  "  return sum\n"                                                                                           \
  "end\n"                                                                                                    \
  "local function text(n) return ('0123456789abcdefg'):rep(n // 17) .. ('x'):rep(n % 17) end\n"

/* Each message goes to a process that sends it back, in the same Lua state; beside it run others that send
 * and receive messages of functions, so that every slice ends in the middle of a copy, and what the copies
 * keep is mixed up if it can be. */
#define ECHO                                                                                                 \
  PRELUDE "local me = self()\n"                                                                              \
          "local noise = {}\n"                                                                               \
          "for i = 1, 2 do noise[i] = spawn(function()\n"                                                    \
          "  local n = 0\n"                                                                                  \
          "  local function up() n = n + 1 return n end\n"                                                   \
          "  local function get() return n end\n"                                                            \
          "  while true do\n"                                                                                \
          "    send(self(), up, {get}, ('y'):rep(70000), {1, 2, {3}})\n"                                     \
          "    local u, g, s, t = receive()\n"                                                               \
          "    if u() ~= g[1]() or #s ~= 70000 or t[3][1] ~= 3 then send(me, 'noise', 'is mixed up') end\n"  \
          "  end\n"                                                                                          \
          "end) end\n"                                                                                       \
          "local function echo(...)\n"                                                                       \
          "  local p = spawn(function(me) send(me, receive()) end, me)\n"                                    \
          "  send(p, ...)\n"                                                                                 \
          "  return receive()\n"                                                                             \
          "end\n"

/* The same, where the values are the arguments of the process. */
#define ECHO_ARGUMENTS                                                                                       \
  ECHO "local function echo(...)\n"                                                                          \
       "  spawn(function(me, ...) send(me, ...) end, self(), ...)\n"                                         \
       "  return receive()\n"                                                                                \
       "end\n"

#define DONE "for _, p in ipairs(noise) do exit(p, 'kill') end\n"

static void test_values(void) {
  run("a list of numbers, with other values in between",
      ECHO "local t = {} for i = 1, 100000 do t[i] = i % 9 == 0 and i / 8 or i % 1000 == 0 and 'x' .. i or "
           "-i end\n"
           "t[1] = {} t[77] = true puts(digest(t) == digest(echo(t)))\n" DONE,
      "true\n");
  run("a table of tables",
      ECHO "local t = {}\n"
           "for i = 1, 8000 do t['k' .. i] = {i, {a = i, [i] = {}, [true] = 'z'}} end\n"
           "local r = echo(t)\n"
           "for i = 1, 8000 do local v = r['k' .. i]\n"
           "  if v[1] ~= i or v[2].a ~= i or next(v[2][i]) or v[2][true] ~= 'z' then puts(i) end\n"
           "end\n"
           "puts(digest(t) == digest(r))\n" DONE,
      "true\n");
  run("short lists of numbers, and tables that are none",
      ECHO
      "local kinds = {\n"
      "  function(i, n) local l = {} for k = 1, n do l[k] = k % 2 == 0 and i + k or i / 8 end return l end,\n"
      "  function(i, n) local l = {} for k = 1, n do l[k] = -i * k end l[n] = 'x' return l end,\n"
      "  function(i, n) local l = {} for k = 1, n do l[k] = i end l[n // 2] = nil return l end,\n"
      "  function(i, n) local l = {} for k = 1, n do l[k] = i end l.n = n return l end,\n"
      "  function(i, n) return {[0] = i, [n + 2] = n} end,\n"
      "}\n"
      "local t = {}\n"
      "for i = 1, 6000 do t[i] = kinds[i % #kinds + 1](i, i % 24) end\n"
      "local function same(a, b)\n"
      "  for k, v in pairs(a) do if math.type(v) ~= math.type(b[k]) or v ~= b[k] then return false end end\n"
      "  return true\n"
      "end\n"
      "local r, wrong = echo(t), 0\n"
      "for i = 1, 6000 do if not same(t[i], r[i]) or not same(r[i], t[i]) then wrong = wrong + 1 end end\n"
      "puts(#r, wrong)\n" DONE,
      "6000\t0\n");
  run("lists with holes and with a hash part",
      ECHO "local t = {} for i = 60000, 1, -1 do if i % 3 ~= 0 then t[i] = i end end t[60001] = 1\n"
           "local u = {} for i = 1, 30000 do u[i * 1000003] = i end\n"
           "local a, b = echo(t, u)\n"
           "puts(digest(t) == digest(a), digest(u) == digest(b))\n" DONE,
      "true\ttrue\n");
  run("long strings, as values and as keys, at all lengths around a piece",
      ECHO "local t = {}\n"
           "for i = -2, 2 do t[i] = text(65536 + i) t[text(131072 + i)] = i end\n"
           "local a, b, c = echo(t, text(3000001), 'end')\n"
           "for k, v in pairs(t) do if a[k] ~= v then puts('wrong', #k) end end\n"
           "puts(digest(t) == digest(a), b == text(3000001), c)\n" DONE,
      "true\ttrue\tend\n");
  run("many values",
      ECHO "local t = {} for i = 1, 30000 do t[i] = i % 2 == 0 and i or {i} end\n"
           "local r = table.pack(echo(table.unpack(t)))\n"
           "puts(r.n, r[2], r[29999][1], r[30000])\n" DONE,
      "30000\t2\t29999\t30000\n");
  run("the same table many times, and deep ones",
      ECHO "local t = {} for i = 1, 14 do t = {t, t, ('s'):rep(20)} end\n"
           "local d = {} for i = 1, 590 do d = {d, text(300)} end\n"
           "local a, b = echo(t, d)\n"
           "local n = 0 while a do a = a[n % 2 + 1] n = n + 1 end\n"
           "local m = 0 while b do b = b[1] m = m + 1 end puts(n, m)\n" DONE,
      "15\t591\n");
  run("functions that share a variable, with a long text and a long list between them",
      ECHO "local n = 0\n"
           "local function up() n = n + 1 end\n"
           "local function get() return n end\n"
           "local list = {} for i = 1, 30000 do list[i] = {} end\n"
           "for i = 1, 3 do\n"
           "  local u, t, l, g = echo(up, text(5000000), list, {get, up})\n"
           "  u() g[2]() puts(g[1](), #t, #l)\n"
           "end\n" DONE,
      "2\t5000000\t30000\n2\t5000000\t30000\n2\t5000000\t30000\n");
}

static void test_arguments(void) {
  run("arguments of a process",
      ECHO_ARGUMENTS
      "local t = {} for i = 1, 8000 do t['k' .. i] = {i, {a = i, [i] = {}, [true] = 'z'}} end\n"
      "for i = 1, 3 do\n"
      "  local a, b, c, d = echo(t, nil, text(1000001), i)\n"
      "  puts(digest(t) == digest(a), b, c == text(1000001), d)\n"
      "end\n" DONE,
      "true\tnil\ttrue\t1\ntrue\tnil\ttrue\t2\ntrue\tnil\ttrue\t3\n");
  run("functions among them that share a variable with each other",
      ECHO_ARGUMENTS
      "local n = 0\n"
      "local u, t, g = echo(function() n = n + 1 end, text(3000000), {function() return n end})\n"
      "u() u() puts(g[1](), #t, n)\n" DONE,
      "2\t3000000\t0\n");
  run("the ties of a process with long arguments",
      ECHO "local t = {} for i = 1, 30000 do t[i] = {i} end\n"
           "trap_exit(true)\n"
           "local p, ref = spawn_opt({link = true, monitor = true, priority = 'low'},\n"
           "  function(...) exit(priority() .. select('#', ...) .. #...) end, t, 2)\n"
           "for i = 1, 2 do\n"
           "  local what, a, b, c = receive()\n"
           "  puts(what, a == p or a == ref, what == 'DOWN' and c or b)\n"
           "end\n"
           "local q, r = spawn_monitor(function(l) exit(#l) end, t)\n"
           "local what, a, b, c = receive() puts(what, a == r, c)\n" DONE,
      "EXIT\ttrue\tlow230000\nDOWN\ttrue\tlow230000\nDOWN\ttrue\t30000\n");
  run("a function by its name",
      ECHO "local t = {} for i = 1, 30000 do t[i] = {i} end\n"
           "spawn('_G', 'send', self(), t, text(100000))\n"
           "local a, b = receive() puts(#a, #b)\n" DONE,
      "30000\t100000\n");
  run("what cannot be an argument is named by its place",
      PRELUDE "local t = {} for i = 1, 50000 do t[i] = {i} end\n"
              "t[49999][1] = io.open('/dev/null')\n"
              "puts(select(2, pcall(spawn, print, 1, t)))\n",
      "argument[2][49999][1]: a userdata cannot be sent\n");
}

/* What the functions of these programs capture: `same` compares the copies. */
#define CAPTURES                                                                                             \
  ECHO "local function same(a, b, seen)\n"                                                                   \
       "  if type(a) ~= 'table' then return a == b and math.type(a) == math.type(b) end\n"                   \
       "  if seen[a] then return seen[a] == b end\n"                                                         \
       "  seen[a] = b\n"                                                                                     \
       "  for k, v in pairs(a) do if not same(v, b[k], seen) then return false end end\n"                    \
       "  for k in pairs(b) do if a[k] == nil then return false end end\n"                                   \
       "  return #a == #b\n"                                                                                 \
       "end\n"

static void test_captured(void) {
  run("a table that a function has captured",
      CAPTURES
      "local t = {} for i = 1, 100000 do t[i] = i % 9 == 0 and i / 8 or i % 5 == 0 and {i} or -i end\n"
      "for i = 1, 30000 do t['k' .. i], t[-i], t[i + 0.5] = {a = {}}, true, i end\n"
      "local r = echo(function() return t end)()\n"
      "puts(same(t, r, {}), r ~= t)\n" DONE,
      "true\ttrue\n");
  run("lists with holes, and tables of all kinds, among very many",
      CAPTURES "local t = {}\n"
               "for i = 1, 20000 do\n"
               "  local l = {} for k = 1, i % 30 do l[k] = k * i end\n"
               "  if i % 3 == 0 then l[i % 30 // 2] = nil end if i % 5 == 0 then l.n = i end\n"
               "  if i % 7 == 0 then l[i + 100] = l end t[i] = l\n"
               "end\n"
               "puts(same(t, echo(function() return t end)(), {}))\n" DONE,
      "true\n");
  run("a chain, a cycle, a table on many paths, and metatables",
      CAPTURES "local list, last = {} last = list\n"
               "for i = 1, 100000 do list = setmetatable({next = list, n = i}, {__len = function() return i "
               "end}) end\n"
               "last.next = list\n"
               "local t = {} for i = 1, 1000 do t = {t, t, t} end\n"
               "local l, u = echo(function() return list, t end)()\n"
               "local at, n, sum = l, 0, 0\n"
               "repeat n, sum, at = n + 1, sum + #at, at.next until at == l\n"
               "local m = 0 while u[1] do m, u = m + (u[1] == u[3] and 1 or 0), u[2] end\n"
               "puts(n, sum, m)\n" DONE,
      "100001\t5000050000\t1000\n");
  run("functions that have captured functions, and variables that these share",
      CAPTURES "local n = 0\n"
               "local function f() n = n + 1 return n end\n"
               "local all = {}\n"
               "for i = 1, 50000 do local g = f f = function() n = n + 1 return g, n end all[i] = f end\n"
               "local g, list = echo(function() return f, all end)()\n"
               "local calls = 0 while type(g) == 'function' do calls, g = calls + 1, g() end\n"
               "puts(calls, g, n, #list, list[50000] ~= f, select(2, list[7]()))\n" DONE,
      "50001\t50001\t0\t50000\ttrue\t50002\n");
  run("long strings, as variables, keys and values, at all lengths around a piece",
      CAPTURES
      "local t, s = {}, text(3000001)\n"
      "for i = -2, 2 do t[i] = text(65536 + i) t[text(131072 + i)] = i t['x' .. text(65535 + i)] = {} end\n"
      "local a, b, c = echo(function() return t, s, 'end' end)()\n"
      "puts(same(t, a, {}), b == s, c)\n"
      "puts(#echo(function() return s end)())\n" DONE,
      "true\ttrue\tend\n3000001\n");
  run("between other values, in a table, as a key, and as arguments of a process",
      CAPTURES
      "local t, n = {}, 0 for i = 1, 30000 do t[i] = {i} end\n"
      "local function up() n = n + 1 return t, n end\n"
      "local function get() return t, n end\n"
      "local a, list, s, b = echo(up, {text(70000), {up, k = up}, [get] = 1}, text(1000000), get)\n"
      "a() list[2][1]() list[2].k()\n"
      "local u, m = b() puts(same(t, u, {}), m, list[b], a() == u, #s, n)\n"
      "spawn(function(f, l) f() l[1]() send(me, select(2, get())) end, up, {up}) puts(receive())\n" DONE,
      "true\t3\t1\ttrue\t1000000\t0\n2\n");
  run("a table with weak keys or values keeps what else refers to",
      CAPTURES "local kept, weak = {}, setmetatable({}, {__mode = 'k'})\n"
               "for i = 1, 20000 do local k = {i} kept[i] = k weak[k] = {i} weak[{}] = {} end\n"
               "local k, w = echo(function() return kept, weak end)() collectgarbage()\n"
               "local n = 0 for i = 1, 20000 do if w[k[i]][1] == i then n = n + 1 end end puts(n)\n" DONE,
      "20000\n");
  run("what cannot be sent, at the end",
      CAPTURES "local t = {} for i = 1, 50000 do t[i] = {i} end t[50000][1] = io.open('/dev/null')\n"
               "for _ = 1, 3 do puts((select(2, pcall(spawn, function() return t end)))) end\n"
               "t[50000][1] = 1 puts(#echo(function() return t end)())\n" DONE,
      "function[1]: the function at test:36 cannot be sent: 't': a userdata cannot be sent\n"
      "function[1]: the function at test:36 cannot be sent: 't': a userdata cannot be sent\n"
      "function[1]: the function at test:36 cannot be sent: 't': a userdata cannot be sent\n50000\n");
}

static void test_predicates(void) {
  run("a predicate sees long messages as they are",
      ECHO "local t = {} for i = 1, 30000 do t[i] = {i} end\n"
           "for i = 1, 5 do send(self(), i, t, text(100000 + i)) end\n"
           "local function wanted(i, l, s) return i == 4 and #l == 30000 and #s == 100004 end\n"
           "local i, l, s = receive_match(wanted) puts(i, #l, #s)\n"
           "puts(receive_match(wanted, 0))\n"
           "for _ = 1, 4 do puts((receive())) end\n" DONE,
      "4\t30000\t100004\nnil\n1\n2\n3\n5\n");
  run("an urgent message that comes while a long one is judged",
      ECHO "local t, me = {}, self() for i = 1, 30000 do t[i] = {i} end\n"
           "local p = spawn(function()\n"
           "  receive_match({'go'})\n"
           "  for i = 1, 20 do send(me, receive_match(function(i) return i == 'urgent' end)) end\n"
           "end)\n"
           "for i = 1, 3 do send(p, i, t) end send(p, 'go')\n"
           "for i = 1, 20 do send_urgent(p, 'urgent', i) puts(select(2, receive()) == i) end\n" DONE,
      "true\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\n"
      "true\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\ntrue\n");
}

static void test_reasons(void) {
  run("a long reason",
      ECHO "local t = {} for i = 1, 30000 do t[i] = {i} end\n"
           "trap_exit(true)\n"
           "spawn_link(function(t) exit(t) end, t)\n"
           "puts(#select(3, receive()))\n"
           "local p = spawn_link(function() receive() end) exit(p, t)\n"
           "puts(#select(3, receive()))\n" DONE,
      "30000\n30000\n");
}

static void test_errors(void) {
  run("what cannot be sent is named by its place, however late it comes",
      PRELUDE "local t = {} for i = 1, 50000 do t[i] = {i} end\n"
              "t[49999][1] = {deep = {[true] = io.open('/dev/null')}}\n"
              "puts(select(2, pcall(send, self(), 1, t)))\n"
              "local d = {} for i = 1, 601 do d = {d} end\n"
              "puts((select(2, pcall(send, self(), d)):gsub('%[1%]%[1%].*: ', '...: ')))\n"
              "puts(pcall(send, self(), text(80 << 20), text(80 << 20)))\n"
              "send(self(), 'still') puts(receive())\n",
      "message[2][49999][1].deep[boolean]: a userdata cannot be sent\nmessage...: nested too deep, or in a "
      "cycle\n"
      "false\tlarger than a message may be (128 MiB)\nstill\n");
}

/* Senders and receivers die in the middle of their copies, again and again; the last ones do not. */
static void test_deaths(void) {
  run("death of a sender or a receiver in the middle of a copy",
      PRELUDE "local me = self()\n"
              "local function pair()\n"
              "  local r = spawn(function() while true do local l, s = receive() send(me, #l, #s) end end)\n"
              "  local s = spawn(function()\n"
              "    local t = {} for i = 1, 30000 do t[i] = {i} end\n"
              "    while true do send(r, t, text(1000000)) sleep(0) end\n"
              "  end)\n"
              "  return s, r\n"
              "end\n"
              "for i = 1, 20 do\n"
              "  local s, r = pair()\n"
              "  sleep(3 * i) exit(i % 2 == 0 and s or r, 'kill') sleep(i) exit(s, 'kill') exit(r, 'kill')\n"
              "end\n"
              "while receive(0) do end\n"
              "pair() pair()\n"
              "for i = 1, 4 do puts(receive()) end\n",
      "30000\t1000000\n30000\t1000000\n30000\t1000000\n30000\t1000000\n");
}

static void test_deaths_with_captures(void) {
  run("death of a sender or a receiver in the middle of a function",
      PRELUDE "local me = self()\n"
              "local function pair()\n"
              "  local r = spawn(function() while true do local f = receive() send(me, #f()) end end)\n"
              "  local s = spawn(function()\n"
              "    local t, s = {}, text(1000000) for i = 1, 30000 do t[i] = {i} end\n"
              "    local function f() return t, s end\n"
              "    while true do send(r, f) sleep(0) end\n"
              "  end)\n"
              "  return s, r\n"
              "end\n"
              "for i = 1, 20 do\n"
              "  local s, r = pair()\n"
              "  sleep(3 * i) exit(i % 2 == 0 and s or r, 'kill') sleep(i) exit(s, 'kill') exit(r, 'kill')\n"
              "end\n"
              "while receive(0) do end\n"
              "pair() pair()\n"
              "for i = 1, 4 do puts(receive()) end\n",
      "30000\n30000\n30000\n30000\n");
  run("death of a parent or a child in the middle of the function of a spawn",
      PRELUDE "local me = self()\n"
              "local t = {} for i = 1, 30000 do t[i] = {i} end\n"
              "local function parent()\n"
              "  return spawn(function()\n"
              "    local l = #t\n"
              "    while true do spawn_link(function() send(me, #t) end) sleep(0) end\n"
              "  end)\n"
              "end\n"
              "for i = 1, 20 do local p = parent() sleep(3 * i) exit(p, 'kill') end\n"
              "local ended = 0\n"
              "for i = 1, 20 do\n"
              "  local p = spawn_monitor(function() receive() return t end)\n"
              "  if i % 4 > 0 then sleep(i % 4 - 1) end exit(p, 'kill')\n"
              "  while receive() ~= 'DOWN' do end ended = ended + 1\n"
              "end\n"
              "local p = parent()\n"
              "puts(ended, receive())\n"
              "exit(p, 'kill')\n",
      "20\t30000\n");
}

/* Parents and their children die while arguments are copied out of the ones and into the others. */
static void test_deaths_of_spawns(void) {
  run("death of a parent or a child while arguments are copied",
      PRELUDE "local me = self()\n"
              "local t = {} for i = 1, 30000 do t[i] = {i} end\n"
              "local function parent()\n"
              "  return spawn(function()\n"
              "    local t = {} for i = 1, 30000 do t[i] = {i} end\n"
              "    while true do\n"
              "      spawn_link(function(l, s) send(me, #l, #s) end, t, text(1000000)) sleep(0)\n"
              "    end\n"
              "  end)\n"
              "end\n"
              "for i = 1, 20 do local p = parent() sleep(3 * i) exit(p, 'kill') end\n"
              "local ended = 0\n"
              "for i = 1, 20 do\n"
              "  local p = spawn_monitor(function() receive() end, t, text(1000000))\n"
              "  if i % 4 > 0 then sleep(i % 4 - 1) end exit(p, 'kill')\n"
              "  while receive() ~= 'DOWN' do end ended = ended + 1\n"
              "end\n"
              "local p = parent()\n"
              "puts(ended, receive())\n"
              "exit(p, 'kill')\n",
      "20\t30000\t1000000\n");
}

static void test_interrupts(void) {
  run("an interrupt in the middle of a copy ends it, and others can copy",
      PRELUDE
      "local nobody, ended = spawn(function() end), 0\n"
      "local function sends(me)\n"
      "  local t = {} for i = 1, 30000 do t[i] = {i} end\n"
      "  local function all() send(me, 'ready') while true do send(nobody, t, text(4000000)) end end\n"
      "  local ok, why = pcall(all) send(me, why) receive()\n"
      "end\n"
      "for i = 1, 8 do\n"
      "  local p = spawn(sends, self()) receive() sleep(3 * i) interrupt(p)\n"
      "  if receive() == 'interrupted' then ended = ended + 1 end\n"
      "end\n"
      "local t = {} for i = 1, 30000 do t[i] = {i} end\n"
      "for i = 1, 5 do send(self(), t, text(4000000)) ended = ended + #receive() end puts(ended)\n",
      "150008\n");
}

/* On one scheduler, a process that gives way again and again counts its turns beside one that copies.  A copy
 * in one piece leaves it two or three. */
#define BESIDE(make, copy)                                                                                   \
  PRELUDE "local me, most = self(), 0\n"                                                                     \
          "for round = 1, 3 do if most < 5 then\n"                                                           \
          "  local busy = spawn(function()\n"                                                                \
          "    " make " send(me, 'ready') receive_match({'go'}) " copy " send(me, 'done')\n"                 \
          "  end)\n"                                                                                         \
          "  receive()\n"                                                                                    \
          "  send_urgent(busy, 'go')\n"                                                                      \
          "  local turns = 0\n"                                                                              \
          "  while not receive(0) do sleep(0) turns = turns + 1 end\n"                                       \
          "  most = math.max(most, turns) end\n"                                                             \
          "end\n"                                                                                            \
          "puts(most >= 5 and 'goes on' or 'has had ' .. most .. ' turns')\n"

#define TABLES "local t = {} for i = 1, 300000 do t[i] = {i} end "

#define KEYS "local t = {} for i = 1, 500000 do t['k' .. i] = i end "

/* Half of its places are empty, in the part of a table that is a hash. */
#define HOLES "local t = {} for i = 1000000, 1, -2 do t[i] = i end "

#define LIST "local t = {} for i = 1, 3000000 do t[i] = i end "

/* The same beside the process whose function has captured t, as it begins. */
#define BESIDE_CHILD(make)                                                                                   \
  PRELUDE "local me, most = self(), 0\n"                                                                     \
          "for round = 1, 3 do if most < 5 then\n"                                                           \
          "  spawn(function()\n"                                                                             \
          "    " make " spawn(function() send(me, 'done', t and 1) end) send(me, 'sent')\n"                  \
          "  end)\n"                                                                                         \
          "  receive_match({'sent'})\n"                                                                      \
          "  local turns = 0\n"                                                                              \
          "  while not receive(0) do sleep(0) turns = turns + 1 end\n"                                       \
          "  most = math.max(most, turns) end\n"                                                             \
          "end\n"                                                                                            \
          "puts(most >= 5 and 'goes on' or 'has had ' .. most .. ' turns')\n"

static void test_ticker(void) {
  run("another process beside the sending of a long string",
      BESIDE("local s = text(60000000)", "send(spawn(function() end), s)"), "goes on\n");
  run("beside the receiving of one",
      BESIDE("send(self(), 'x', text(80000000))", "assert(#select(2, receive()) == 80000000)"), "goes on\n");
  run("beside the sending of a table with many keys", BESIDE(KEYS, "send(spawn(function() end), t)"),
      "goes on\n");
  run("beside the sending of a list with many holes", BESIDE(HOLES, "send(spawn(function() end), t)"),
      "goes on\n");
  run("beside the sending of many tables", BESIDE(TABLES, "send(spawn(function() end), t)"), "goes on\n");
  run("beside a spawn with these", BESIDE(TABLES, "spawn(function() end, t)"), "goes on\n");
  run("beside the process that gets these",
      PRELUDE "local me, most = self(), 0\n"
              "for round = 1, 3 do if most < 5 then\n"
              "  spawn(function() " TABLES
              " spawn(function() send(me, 'done') end, t) send(me, 'sent') end)\n"
              "  receive()\n"
              "  local turns = 0\n"
              "  while not receive(0) do sleep(0) turns = turns + 1 end\n"
              "  most = math.max(most, turns) end\n"
              "end\n"
              "puts(most >= 5 and 'goes on' or 'has had ' .. most .. ' turns')\n",
      "goes on\n");
  run("beside the sending of a function that has captured these",
      BESIDE(TABLES "local f = function() return t end", "send(spawn(function() end), f)"), "goes on\n");
  run("beside a spawn of it", BESIDE(TABLES "local f = function() return t end", "spawn(f)"), "goes on\n");
  run("beside the receiving of it", BESIDE(TABLES "send(self(), 'x', function() return t end)", "receive()"),
      "goes on\n");
  run("beside the process that is it", BESIDE_CHILD(TABLES), "goes on\n");
#ifndef __SANITIZE_THREAD__ /* which holds signals back until a system call: nothing is preempted there */
  run("beside a function that has captured a list", BESIDE_CHILD(LIST), "goes on\n");
#endif
  run("beside one that has captured a long string", BESIDE_CHILD("local t = text(100000000)"), "goes on\n");
  run("beside one that has captured a chain", BESIDE_CHILD("local t for i = 1, 300000 do t = {t} end"),
      "goes on\n");
  run("beside one that has captured functions",
      BESIDE_CHILD("local t for i = 1, 100000 do local f = t t = function() return f end end"), "goes on\n");
  run("beside an exit with these", BESIDE(TABLES, "pcall(exit, spawn(function() receive() end), t)"),
      "goes on\n");
#ifndef __SANITIZE_THREAD__ /* which holds signals back until a system call: nothing is preempted there */
  run("beside a predicate of Lua's library",
      BESIDE("for i = 1, 200000 do send(self(), i, 0) end", "receive_match(math.ult, 0)"), "goes on\n");
#endif
  run("beside a predicate that gets many tables",
      BESIDE(TABLES "send(self(), 'x', t) t = nil", "receive_match(function() end, 0)"), "goes on\n");
  run("beside the receiving of these", BESIDE(TABLES "send(self(), 'x', t)", "receive()"), "goes on\n");
}

int main(void) {
  host = host_new(1, (size_t)512 << 20, NULL);
  test_values();
  test_arguments();
  test_captured();
  test_predicates();
  test_reasons();
  test_errors();
  test_deaths();
  test_deaths_of_spawns();
  test_deaths_with_captures();
  test_interrupts();
  test_ticker();
  host_free(host);
  return tap_end();
}
