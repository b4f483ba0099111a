/* Isolation: one process cannot take the core or the memory from another, or damage shared state. */
#include "tap.h"
#include "vm_host.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

static struct host *host;

static void run(const char *what, const char *code, const char *want) {
  char *got = host_run(host, code);
  is(got, want, "%s", what);
  free(got);
}

#ifndef __SANITIZE_THREAD__ /* which holds signals back until a system call: nothing is preempted there */
/* A neighbour counts time while the given code keeps the core; its longest gap between two looks is the
 * stall. */
static void stall(const char *what, const char *hog) {
  char code[2048];
  snprintf(
      code, sizeof code,
      "local me = self()\n"
      "local hogs = {} for i = 1, 4 do hogs[i] = spawn(function() while true do %s end end) end\n"
      "local worst, last = 0, monotonic()\n"
      "for i = 1, 50 do sleep(1) local now = monotonic() worst = math.max(worst, now - last) last = now end\n"
      "for i = 1, 4 do exit(hogs[i], 'kill') end\n"
      "puts(worst < 200000000 or worst)",
      hog);
  run(what, code, "true\n");
}

/* Endless code that Lua's library calls, and calls of it that would take for ever. */
static const char *const callbacks[] = {
    "table.sort({3, 2, 1}, function() while true do end end)",
    "table.sort({setmetatable({}, {__lt = function() while true do end end}), {}})",
    "string.gsub('x', 'x', function() while true do end end)",
    "string.gsub('x', 'x', setmetatable({}, {__index = function() while true do end end}))",
    "tostring(setmetatable({}, {__tostring = function() while true do end end}))",
    "puts(setmetatable({}, {__tostring = function() while true do end end}))",
    "string.format('%s', setmetatable({}, {__tostring = function() while true do end end}))",
    "xpcall(error, function() while true do end end)",
    "table.concat(setmetatable({}, {__index = function() while true do end end}), '', 1, 2)",
    "table.unpack(setmetatable({}, {__index = function() while true do end end}), 1, 2)",
    "table.insert(setmetatable({}, {__len = function() while true do end end}), 1)",
    "table.insert(setmetatable({}, {__len = function() return 1e18 end}), 1, 'x')",
    "table.concat(setmetatable({}, {__index = rawlen}), '', 1, 1e18)",
    "table.move({}, 1, 1e18, 2)",
    "for _ in ipairs(setmetatable({}, {__index = function() while true do end end})) do end",
    "string.find(('a'):rep(1e5), ('a-'):rep(10) .. 'b')",
    "string.match(('a'):rep(1e5), ('a*'):rep(10) .. 'b')",
    "string.gsub(('a'):rep(1e5), ('a?'):rep(100) .. 'b', '')",
    "string.gmatch(('a'):rep(1e5), ('(a+)'):rep(10) .. '%1b')()",
};

/* In one isolate, many processes that never wait run beside the process that computes; in other isolates the
 * processes of a ring wake each other all the time. */
static void test_turns(void) {
  struct host *all = host;
  host = host_new(1, 0, NULL);
  run("who computes gets its turns beside those who are woken all the time",
      "for i = 1, 70 do spawn(function() receive() end) end local ring = {}\n"
      "for i = 1, 40 do ring[i] = spawn(function() while true do send(receive(), self()) end end) end\n"
      "for i = 1, 40 do send(ring[i], ring[i % 40 + 1]) end\n"
      "local n = 0 for i = 1, 3e6 do n = n + i % 7 end\n"
      "for i = 1, 40 do exit(ring[i], 'kill') end puts('done')",
      "done\n");
  run("and they theirs, however long a turn is",
      "for i = 1, 70 do spawn(function() receive() end) end local long = ('x'):rep(2e7)\n"
      "local hog = spawn(function() while true do long:upper() end end)\n"
      "for i = 1, 20 do sleep(1) end exit(hog, 'kill') puts('done')",
      "done\n");
  host_free(host);
  host = all;
}

static void test_preemption(void) {
  test_turns();
  stall("an endless loop", "");
  run("who was woken goes before all that were preempted",
      "local hogs, best = {}, math.huge\n"
      "for i = 1, 20 do hogs[i] = spawn(function() while true do end end) sleep(0) end\n"
      "for i = 1, 50 do local last = monotonic() sleep(1) best = math.min(best, monotonic() - last) end\n"
      "for i = 1, 20 do exit(hogs[i], 'kill') end puts(best < 4000000 or best)",
      "true\n");
  run("and before those that compute in other isolates",
      "local me, hogs, best = self(), {}, math.huge\n"
      "for i = 1, 20 do hogs[i] = spawn(function() while true do end end) end\n"
      "local echo = spawn(function() while true do local to, at = receive() send(to, at) end end)\n"
      "for i = 1, 500 do send(echo, me, monotonic()) local at = receive() best = math.min(best, monotonic() "
      "- at)\n"
      "  if best < 3000000 then break end end\n"
      "for i = 1, 20 do exit(hogs[i], 'kill') end exit(echo, 'kill') puts(best < 3000000 or best)",
      "true\n");
  stall("deep recursion", "local function f(n) return n == 0 and 0 or 1 + f(n - 1) end f(10000)");
  stall("a loop of calls", "local x = math.abs(-1)");
  stall("string building", "local s = '' for i = 1, 100 do s = s .. i end");
  stall("an endless loop within pcall", "pcall(function() while true do end end)");
  stall("a long sort without a callback",
        "local t = {} for i = 1, 100000 do t[i] = i * 7919 % 100003 end table.sort(t)");
}

/* The first child stays in its parent's isolate, so the parent runs on only if the hog is preempted. */
static void test_callbacks_end(void) {
  for (size_t i = 0; i < sizeof callbacks / sizeof *callbacks; i++) {
    char code[512];
    snprintf(code, sizeof code,
             "local hog = spawn_monitor(function() pcall(function() %s end) end)\n"
             "for i = 1, 5 do sleep(1) end exit(hog, 'kill')\n"
             "local kind, _, from, reason = receive() puts(kind, from == hog, reason)",
             callbacks[i]);
    run(callbacks[i], code, "DOWN\ttrue\tkilled\n");
  }
}

/* The next process gets the coroutine of the last one that has ended. */
static void test_after_error_of_hook(void) {
  static const char *const ends[] = {"while true do end", "local function f() return 1 + f() end f()"};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    char code[1024];
    snprintf(
        code, sizeof code,
        "local p, ref = spawn_monitor(function() %s end)\n"
        "sleep(1) interrupt(p) receive_match{'DOWN', ref} sleep(0)\n"
        "local hog = spawn(function() local stop = monotonic() + 1e9 while monotonic() < stop do end end)\n"
        "local worst, last = 0, monotonic()\n"
        "for i = 1, 50 do sleep(1) local now = monotonic() worst = math.max(worst, now - last) last = now "
        "end\n"
        "exit(hog, 'kill') puts(worst < 500000000 or worst)",
        ends[i]);
    run("a process that gets the coroutine of one that a hook has ended is preempted, too", code, "true\n");
  }
}

/* Code that cannot be suspended is cut off after a second, even when it catches errors. */
static void test_callbacks_are_cut_off(void) {
  run("a reader of load that never returns",
      "local f, why = load(function() while true do pcall(function() while true do end end) end end)\n"
      "puts(f, why:match('a callback.*'))",
      "nil\ta callback of a C function ran for more than a second, and cannot be suspended\n");
}

/* A variable with a __close metamethod, which runs when its process ends. */
#define CLOSE "local x <close> = setmetatable({}, {__close = function() %s end}) "

static void test_close(void) {
  static const char *const endless = "while true do end", *const last = "send(owner, 'closed')";
  static const struct {
    const char *what, *body, *then, *want;
  } ends[] = {
      {"is closed when it fails", last, "error('x', 0)", "closed DOWN error\n"},
      {"is not when it is killed", last, "exit(self(), 'kill')", "DOWN killed\n"},
      {"is not when it waits and is killed", last, "send(owner, 'kill me') receive()",
       "kill me DOWN killed\n"},
      {"is not when it exits", last, "exit('x')", "DOWN x\n"},
      {"cannot keep one that is killed", endless, "exit(self(), 'kill')", "DOWN killed\n"},
      {"cannot keep one that fails", endless, "error('x', 0)", "DOWN error\n"},
      {"cannot keep one that is interrupted", endless, "send(owner, 'interrupt me') while true do end",
       "interrupt me DOWN error\n"},
      {"cannot keep one that recurses without end", endless, "local function f() return 1 + f() end f()",
       "DOWN error\n"},
  };
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    char code[1024];
    snprintf(code, sizeof code,
             "local owner, seen = self(), {}\n"
             "local pid = spawn_monitor(function() " CLOSE "%s end)\n"
             "while seen[#seen] ~= 'DOWN' do\n"
             "  local word, _, _, reason = receive() seen[#seen + 1] = word\n"
             "  if word == 'kill me' then exit(pid, 'kill') end\n"
             "  if word == 'interrupt me' then interrupt(pid) end\n"
             "  if word == 'DOWN' then puts(table.concat(seen, ' ') .. ' ' .. (reason[1] or reason)) end\n"
             "end",
             ends[i].body, ends[i].then);
    run(ends[i].what, code, ends[i].want);
  }
}

#else
static void test_after_error_of_hook(void) {}
static void test_preemption(void) {}
static void test_callbacks_end(void) {}
static void test_callbacks_are_cut_off(void) {}
static void test_close(void) {}
#endif

static void test_callbacks_wait(void) {
  run("a comparison may wait",
      "local t = {3, 1, 2} table.sort(t, function(a, b) sleep(1) return a < b end) puts(table.concat(t))",
      "123\n");
  run("a replacement may wait for a message",
      "for i = 1, 3 do send(self(), i) end puts(('abc'):gsub('%a', function(c) return c .. receive() end))",
      "a1b2c3\t3\n");
  run("a replacing table's __index may wait",
      "local t = setmetatable({}, {__index = function(_, k) sleep(1) return k:upper() end})\n"
      "puts(string.gsub('one two', '(%a)%a', t))",
      "Oe To\t2\n");
}

/* table.sort: prints the same as Lua's own sort. */
static void test_sort(void) {
  run("a table whose metamethods wait is sorted",
      "local real = {3, 1, 2}\n"
      "local t = setmetatable({}, {__len = function() sleep(1) return #real end,\n"
      "  __index = function(_, k) sleep(1) return real[k] end,\n"
      "  __newindex = function(_, k, v) sleep(1) real[k] = v end})\n"
      "table.sort(t) puts(table.concat(real)) table.sort(t, function(a, b) sleep(1) return a > b end)\n"
      "puts(table.concat(real)) real = {1} table.sort(t, 7) puts(real[1])",
      "123\n321\n1\n");
  run("a length that is none, and wrong arguments, are errors",
      "local function try(...) puts((select(2, pcall(table.sort, ...)))) end\n"
      "local function long(n) return setmetatable({}, {__len = function() return n end}) end\n"
      "try(long('x')) try(long(1.5)) try(long(math.maxinteger)) try({1, 2}, 7) try(7) try()",
      "object length is not an integer\nobject length is not an integer\n"
      "bad argument #1 to 'table.sort' (array too big)\nbad argument #2 to 'table.sort' (function expected, "
      "got "
      "number)\n"
      "bad argument #1 to 'table.sort' (table expected, got number)\n"
      "bad argument #1 to 'table.sort' (table expected, got no value)\n");
  run("sort sorts by a callback",
      "local t, n = {}, 5000 for i = 1, n do t[i] = i * 7919 % 5003 end\n"
      "table.sort(t, function(a, b) return a > b end)\n"
      "for i = 2, n do if t[i - 1] < t[i] then puts('wrong at', i) end end puts('done')",
      "done\n");
  run("and by the elements' __lt",
      "local mt = {__lt = function(a, b) return a.v < b.v end}\n"
      "local t = {} for i = 1, 9 do t[i] = setmetatable({v = i * 7 % 10}, mt) end table.sort(t)\n"
      "for i = 1, 9 do t[i] = t[i].v end puts(table.concat(t))",
      "123456789\n");
  run("and many strings",
      "local t = {} for i = 1, 2000 do t[i] = ('%04d'):format(2001 - i) end\n"
      "table.sort(t) puts(t[1], t[1000], t[2000])",
      "0001\t1000\t2000\n");
  run("an order that contradicts itself is told where sort was called",
      "local t = {} for i = 1, 200 do t[i] = i end\n"
      "puts(pcall(function() table.sort(t, function() return true end) end))",
      "false\ttest:2: invalid order function for sorting\n");
  run("what cannot be compared", "puts(pcall(table.sort, {1, 'x', 3}))",
      "false\tattempt to compare string with number\n");
  run("nor can tables", "puts(pcall(table.sort, {{}, {}}))", "false\tattempt to compare two table values\n");
  run("and its arguments are checked", "puts(pcall(function() table.sort({1, 2}, 5) end))",
      "false\ttest:1: bad argument #2 to 'sort' (function expected, got number)\n");
}

static void test_gsub(void) {
  run("empty matches count as in Lua", "puts(string.gsub('abc', 'x*', function(m) return '-' end))",
      "-a-b-c-\t4\n");
  run("but not where a match just ended",
      "puts(string.gsub('abab', 'b*', function(m) return '<' .. m .. '>' end))", "<>a<b>a<b>\t3\n");
  run("an anchor holds once", "puts(string.gsub('aaa', '^a', function() return 'b' end))", "baa\t1\n");
  run("the limit holds", "puts(string.gsub('aaa', 'a', function() return 'b' end, 2))", "bba\t2\n");
  run("captures and positions",
      "puts(string.gsub('k=v', '(%w)=(%w)()', function(a, b, at) return b .. at .. a end))", "v4k\t1\n");
  run("false and nil keep the match", "puts(string.gsub('ab', '.', function(c) return c == 'a' and 1 end))",
      "1b\t2\n");
  run("another value is an error",
      "puts(pcall(function() string.gsub('x', 'x', function() return {} end) end))",
      "false\ttest:1: invalid replacement value (a table)\n");
  run("and so is a bad pattern", "puts(pcall(function() string.gsub('x', '[', function() end) end))",
      "false\ttest:1: malformed pattern (missing ']')\n");
  run("a lone bracket too", "puts(pcall(function() string.gsub('x', ')', function() end) end))",
      "false\ttest:1: invalid pattern capture\n");
  run("and its arguments are checked", "puts(pcall(function() string.gsub({}, 'x', print) end))",
      "false\ttest:1: bad argument #1 to 'gsub' (string expected, got table)\n");
}

static void test_memory(void) {
  run("a process over its limit ends alone, with the reason memory",
      "local p, r = spawn_monitor(function() local t = {} for i = 1, 1e9 do t[i] = {i} end end)\n"
      "puts(select(4, receive()))",
      "memory\n");
  run("pcall does not save it",
      "local p, r = spawn_monitor(function() pcall(function() local t = {} for i = 1, 1e9 do t[i] = {i} end "
      "end)\n"
      "  while true do end end) puts(select(4, receive()))",
      "memory\n");
  run("nor one huge string",
      "local p, r = spawn_monitor(function() local s = ('x'):rep(1 << 30) sleep(1000) end)\n"
      "puts(select(4, receive()))",
      "memory\n");
  run("nor do timers, whose messages wait outside of Lua",
      "local p, r = spawn_monitor(function() while true do send_after(1e9, self(), ('x'):rep(1000)) end "
      "end)\n"
      "puts(select(4, receive()))",
      "memory\n");
  run("nor monitors",
      "local p, r = spawn_monitor(function() local p = spawn(function() receive() end)\n"
      "  while true do monitor(p) end end) puts(select(4, receive()))",
      "memory\n");
  run("timers and monitors that are gone do not count",
      "local p, r = spawn_monitor(function() local p = spawn(function() receive() end)\n"
      "  for i = 1, 300000 do demonitor(monitor(p)) cancel_timer(send_after(1e9, p, ('x'):rep(1000))) end\n"
      "  for i = 1, 3000 do send_after(0, p, ('x'):rep(30000)) if i % 100 == 0 then sleep(1) end end end)\n"
      "puts(select(4, receive()))",
      "normal\n");
  run("code that is made at run time is not kept for ever",
      "for i = 1, 30 do\n"
      "  spawn_monitor(assert(load('return ' .. i .. ', \"' .. ('x'):rep(2000000) .. '\"'))) receive()\n"
      "end puts('done')",
      "done\n");
  run("inspect shows the beginning of a long string", "puts(#inspect(('x'):rep(10000000)) < 2000000)",
      "true\n");
  run("garbage is not held against it",
      "local p, r = spawn_monitor(function() for i = 1, 3000 do local s = ('x'):rep(100000 + i) end end)\n"
      "puts(select(4, receive()))",
      "normal\n");
}

static void test_shared(void) {
  static const char *const attempts[] = {
      "string.x = 1",
      "string.format = nil",
      "math.pi = 3",
      "rawset(string, 'x', 1)",
      "rawset(node, 'x', 1)",
      "setmetatable(string, {})",
      "setmetatable(_G, {})",
      "getmetatable('').__index = nil",
      "(''):dump()",
      "getmetatable(_G).x = 1",
      "getmetatable(string).__index.x = 1",
      "table.insert(string, 1)",
      "local f, t = pairs(string) t.x = 1",
      "getmetatable(self()).__tostring = nil",
      "getmetatable(io.open('/dev/null')).x = 1",
      "setmetatable({}, {__gc = function() end})",
      "os.exit()",
      "os.execute('true')",
      "io.popen('true')",
      "coroutine.create(print)",
      "debug.getregistry()",
      "load(string.dump(print))",
      "require('debug').x = 1",
      "collectgarbage('stop')",
      "package.loadlib('x', 'y')",
      "os.setlocale('C')",
      "io.lines()",
      "dofile('/dev/null')",
      "loadfile('/dev/null')()",
      "math.randomseed(1)",
  };
  for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
    char code[512];
    snprintf(code, sizeof code, "puts((pcall(function() %s end)))", attempts[i]);
    run(attempts[i], code, "false\n");
  }
  run("globals die with their process", "leak = 1 string2 = string", "");
  run("and are not seen by the next", "puts(leak, string2)", "nil\tnil\n");
  run("a changed global is one's own", "print = 1 puts(print)", "1\n");
  run("and the next has it back", "print('x')", "x\n");
  run("pairs shows a library's functions", "local n = 0 for k in pairs(table) do n = n + 1 end puts(n)",
      "7\n");
  run("_G is the process's table", "x = 5 puts(_G.x, _G._G == _G) _G.y = 6 puts(y)", "5\ttrue\n6\n");
  run("methods of strings work", "puts(('%d'):format(3), ('x'):rep(3))", "3\txxx\n");
}

#ifdef __SANITIZE_THREAD__
#define MANY "10000" /* ThreadSanitizer's bookkeeping becomes so slow that more would take minutes */
#else
#define MANY "100000"
#endif

static void test_mailboxes(void) {
  run("a mailbox of many messages",
      "for i = 1, 200000 do send(self(), i) end local sum = 0 for i = 1, 200000 do sum = sum + receive() end "
      "puts(sum)",
      "20000100000\n");
  run("very many processes",
      "local n, me = " MANY ", self()\n"
      "for i = 1, n do spawn(function() send(me, receive()) end) end puts('spawned')",
      "spawned\n");
}

/* Sends count messages of the host, then a call; waits for its reply, which comes when the messages have
 * arrived. */
static void flood(struct host *h, npid to, int count) {
  for (int i = 0; i < count; i++)
    vm_deliver(h->vm, signal_new(SIGNAL_MESSAGE, to, h->tester, NPID_NONE, term_build("i", (int64_t)i)));
  npid ref = vm_ref(h->vm);
  vm_deliver(h->vm, signal_new(SIGNAL_CALL, to, h->tester, ref, term_build("s", "flush")));
  signal_free(host_wait(h, SIGNAL_REPLY, ref));
}

static void test_mailbox_bound(void) {
  enum { BOUND = 10 };
  struct host *all = host;
  host = host_new_with(&(struct vm_config){.schedulers = 2, .mailbox_count = BOUND});
  run("a green thread waits for room",
      "local slow = spawn_monitor(function() sleep(5) for i = 1, 100 do receive() end end)\n"
      "for i = 1, 100 do send(slow, i) end puts(select(4, receive()))",
      "normal\n");
  npid down, slow = host_spawn(host, "sleep(1e9)", &down, NULL);
  flood(host, slow, 2 * BOUND - 1);
  ok(vm_alive(host->vm, slow), "who cannot wait may send on past the bound");
  flood(host, slow, 1);
  struct signal *s = host_wait(host, SIGNAL_DOWN, down);
  ok(s && term_is_word(s->term, "memory"), "at twice the bound the receiver ends");
  signal_free(s);
  char *errors = host_errors(host);
  ok(strstr(errors, " ended: its mailbox outgrew its bound\n"), "and its leader is told so");
  free(errors);
  run("timers cannot wait either",
      "local p = spawn_monitor(function() sleep(1e9) end)\n"
      "for i = 1, 20 do send_after(0, p, i) end puts(select(4, receive()))",
      "memory\n");
  free(host_errors(host));
  host_free(host);
  host = all;
}

/* Messages in the inbox of an isolate count as well, so senders in other isolates are bounded, too. */
static void test_mailbox_bytes(void) {
  struct host *all = host;
  host = host_new_with(&(struct vm_config){.schedulers = 2, .mailbox_bytes = 64 << 10});
  run("however many wait, wherever they are; one of them may be ended",
      "local me, x = self(), ('x'):rep(1000)\n"
      "local slow = spawn(function() sleep(20) while true do local tag = receive() send(me, tag) end end)\n"
      "for i = 1, 8 do spawn(function() for j = 1, 100 do send(slow, 'sent', x) end end) end\n"
      "local doomed = spawn(function() while true do send(slow, 'doomed', x) end end)\n"
      "sleep(5) exit(doomed, 'kill')\n"
      "local n = 0 while n < 800 do if receive() == 'sent' then n = n + 1 end end puts(n, alive(doomed))",
      "800\tfalse\n");
  run("a receiver that ends lets them go on",
      "local me, x = self(), ('x'):rep(1000)\n"
      "local slow = spawn(function() sleep(20) end)\n"
      "for i = 1, 20 do spawn(function() for j = 1, 100 do send(slow, x) end send(me, 'done') end) end\n"
      "for i = 1, 20 do receive() end puts(alive(slow))",
      "false\n");
  host_free(host);
  host = all;
}

/* The node ends even while a call keeps a scheduler thread busy. */
static void test_stop(void) {
  struct host *h = host_new(2, 0, NULL);
  npid pid = host_spawn(h, "receive() puts('held')", NULL, NULL);
  pthread_mutex_lock(&h->gate);
  vm_deliver(h->vm, signal_new(SIGNAL_MESSAGE, pid, h->tester, NPID_NONE, term_build("s", "go")));
  while (atomic_load(&h->at_gate) == 0) sched_yield();
  ok(vm_stop(h->vm) == ERR_TIMEOUT, "vm_stop gives up on a scheduler that is held");
  pthread_mutex_unlock(&h->gate);
  ok(vm_stop(h->vm) == 0, "and may be asked again");
  host_free(h);
}

static void test_files(void) {
  run("io.open of what may make its reader wait is refused", "puts((select(2, io.open('/dev/ptmx'))))",
      "/dev/ptmx: a pipe, a terminal or the like, whose reader might wait for ever; sh() or "
      "exec() "
      "can read it\n");
  run("files are written and read",
      "local path = os.tmpname() local f = io.open(path, 'w+') f:write('a\\nb\\n') f:seek('set') "
      "puts(f:read('a'))\n"
      "puts(io.type(f), f:close(), io.type(f)) for l in io.lines(path) do puts(l) end os.remove(path)",
      "a\nb\n\nfile\ttrue\tclosed file\na\nb\n");
  run("a device of memory is one", "puts(#io.open('/dev/zero'):read(2))", "2\n");
  run("what is not there", "puts(io.open('/no/such')) puts(select(2, pcall(io.lines, '/no/such')))",
      "nil\t/no/such: No such file or directory\t2\ncannot open file '/no/such' (No such file or "
      "directory)\n");
  run("a mode that is none", "puts(select(2, pcall(function() io.open('/dev/null', 'rw') end)))",
      "test:1: bad argument #2 to 'open' (invalid mode)\n");
}

int main(void) {
  host = host_new(2, (size_t)32 << 20, NULL);
  test_preemption();
  test_callbacks_end();
  test_callbacks_are_cut_off();
  test_after_error_of_hook();
  test_close();
  test_callbacks_wait();
  test_sort();
  test_gsub();
  test_memory();
  test_shared();
  test_mailboxes();
  test_mailbox_bound();
  test_mailbox_bytes();
  test_files();
  test_stop();
  host_free(host);
  return tap_end();
}
