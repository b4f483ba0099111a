/* What one process cannot do to another: take the core, the memory, or what they share. */
#include "tap.h"
#include "vm_host.h"

#include <stdlib.h>

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

static void test_preemption(void) {
  stall("an endless loop", "");
  stall("deep recursion", "local function f(n) return n == 0 and 0 or 1 + f(n - 1) end f(10000)");
  stall("a loop of calls", "local x = math.abs(-1)");
  stall("string building", "local s = '' for i = 1, 100 do s = s .. i end");
  stall("an endless loop within pcall", "pcall(function() while true do end end)");
}
#else
static void test_preemption(void) {}
#endif

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

static void test_mailboxes(void) {
  run("a mailbox of many messages",
      "for i = 1, 200000 do send(self(), i) end local sum = 0 for i = 1, 200000 do sum = sum + receive() end "
      "puts(sum)",
      "20000100000\n");
  run("a hundred thousand processes",
      "local n, me = 100000, self()\n"
      "for i = 1, n do spawn(function() send(me, receive()) end) end puts('spawned')",
      "spawned\n");
}

int main(void) {
  host = host_new(2, (size_t)32 << 20, NULL);
  test_preemption();
  test_memory();
  test_shared();
  test_mailboxes();
  host_free(host);
  return tap_end();
}
