/* Priorities of processes, on one scheduler, where all of them share an isolate or two. */
#include "vm_host.h"

#include "tap.h"

#include <stdlib.h>
#include <string.h>

static struct host *host;

static void run(const char *name, const char *code, const char *want) {
  char *out = host_run(host, code), *errors = host_errors(host);
  is(out, want, "%s", name);
  free(out);
  free(errors);
}

static void test_words(void) {
  run("a process has the normal priority, and sets another",
      "puts(priority(), priority('low'), priority(), priority('high'), priority('normal'))",
      "normal\tnormal\tlow\tlow\thigh\n");
  run("a child does not inherit it",
      "priority('high') local me = self() spawn(function() send(me, priority()) end) puts(receive())",
      "normal\n");
  run("a wrong one is refused", "puts(pcall(priority, 'idle')) puts(pcall(priority, 3)) puts(priority())",
      "false\tbad argument #1 to 'priority' (the priority 'low', 'normal' or 'high' expected)\n"
      "false\tbad argument #1 to 'priority' (the priority 'low', 'normal' or 'high' expected)\n"
      "normal\n");
}

static void test_spawn_opt(void) {
  run("spawn_opt sets it before the process runs, here and in another isolate",
      "local me, t = self(), {} local function f() send(me, priority()) end\n"
      "for _ = 1, 5 do spawn_opt({priority = 'low'}, f) end\n"
      "for i = 1, 5 do t[i] = receive() end puts(table.concat(t, ' '))",
      "low low low low low\n");
  run("and of a function with tables, which goes as an order",
      "local me, t = self(), {9} spawn_opt({priority = 'high'}, function() send(me, priority(), t[1]) end)\n"
      "puts(receive())",
      "high\t9\n");
  run("process_info tells it",
      "local p = spawn_opt({priority = 'low'}, function() receive() end) puts(process_info(p).priority)\n"
      "puts(process_info(self()).priority) send(p)",
      "low\nnormal\n");
  run("spawn_opt links and monitors, too",
      "trap_exit(true) local p, ref = spawn_opt({link = true, monitor = true}, function() exit('x') end)\n"
      "local got = {} for _ = 1, 2 do local kind, a, b, c = receive()\n"
      "  if kind == 'EXIT' then got[1] = a == p and b end if kind == 'DOWN' then got[2] = a == ref and c end "
      "end\n"
      "puts(got[1], got[2], select('#', spawn_opt({}, function() end)))",
      "x\tx\t1\n");
  run("wrong options are refused",
      "for _, o in ipairs {{link = 1}, {nice = true}, {'link'}, {priority = 7}} do\n"
      "  puts(select(2, pcall(spawn_opt, o, function() end))) end puts((pcall(spawn_opt, 5, print)))",
      "bad argument #1 to 'spawn_opt' (the options are link and monitor, booleans, and priority)\n"
      "bad argument #1 to 'spawn_opt' (the options are link and monitor, booleans, and priority)\n"
      "bad argument #1 to 'spawn_opt' (the options are link and monitor, booleans, and priority)\n"
      "bad argument #1 to 'spawn_opt' (the priority 'low', 'normal' or 'high' expected)\n"
      "false\n");
}

/* Each turn ends by sleep(0), so turns are counted, not time.  The other process counts its turns until it is
 * told to stop. */
#define COUNTER                                                                                              \
  "local me = self() local function count() local n = 0\n"                                                   \
  "  repeat n = n + 1 sleep(0) until receive(0) send(me, n) end\n"                                           \
  "local function turns(k) for _ = 1, k do sleep(0) end end\n"

static void test_low(void) {
  run("beside one that computes, those of low priority get one turn in eight, together",
      COUNTER "local p = {} for i = 1, 3 do p[i] = spawn_opt({priority = 'low'}, count) end\n"
              "turns(800) local n = 0 for i = 1, 3 do send(p[i], 'stop') end\n"
              "for i = 1, 3 do n = n + receive() end puts(n > 70 and n < 130 or n)",
      "true\n");
  run("one of low priority does not come before the others when it is woken",
      COUNTER
      "local lazy = spawn_opt({priority = 'low'}, function() receive() send(me, 'late') end) sleep(20)\n"
      "local q = spawn(function() send(lazy, 'go') turns(5) send(me, 'first') end)\n"
      "puts(receive(), receive())",
      "first\tlate\n");
  run("and runs when nothing else wants the core",
      COUNTER
      "local p = spawn_opt({priority = 'low'}, count) sleep(20) send(p, 'stop') puts(receive() > 100)",
      "true\n");
}

static void test_high(void) {
  run("one of high priority has its turns before one that computes has another",
      COUNTER "local p = spawn(count) sleep(0)\n"
              "local high = spawn_opt({priority = 'high'}, function() turns(1000) send(p, 'stop') end)\n"
              "local n = receive() puts(n < 100 or n)",
      "true\n");
  run("but does not shut it out",
      COUNTER "local high = spawn_opt({priority = 'high'}, function() while true do end end)\n"
              "local n = 0 for i = 1, 100000 do n = n + 1 end exit(high, 'kill') puts('done')",
      "done\n");
}

int main(void) {
  host = host_new(1, 0, NULL);
  test_words();
  test_spawn_opt();
  test_low();
  test_high();
  host_free(host);
  return tap_end();
}
