/* The memory of processes: the limit of each, what comes back after their ends, and the bound of the node. */
#include "tap.h"
#include "vm_host.h"

#include "base/clock.h"
#include "vm/process/budget.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20 };

static int64_t until(void) {
  return clock_ns() + (int64_t)60 * 1000000000;
}

/* --- the limit of a process --- */

/* A process collects the garbage of others while it holds little, and then fills its own memory: it ends at
 * the limit, by the tenth. */
static const char evade[] =
    "local me = self()\n"
    "local q = spawn(function()\n"
    "  while receive() ~= 'hold' do\n"
    "    for _ = 1, 1000 do local row = {} for j = 1, 2048 do row[j] = j end end\n"
    "    send(me, 'collected')\n"
    "  end\n"
    "  local t = {}\n"
    "  while true do\n"
    "    local row = {} for j = 1, 8192 do row[j] = j end\n"
    "    t[#t + 1] = row\n"
    "    send(me, 'holds', #t / 8)\n"
    "  end\n"
    "end)\n"
    "monitor(q)\n"
    "for _ = 1, 4 do\n"
    "  spawn(function()\n"
    "    local t = {}\n"
    "    for i = 1, 300 do local row = {} for j = 1, 2048 do row[j] = j end t[i] = row end\n"
    "    send(me, 'built')\n"
    "  end)\n"
    "  receive_match({'built'})\n"
    "  for _ = 1, 3 do send(q, 'collect') receive_match({'collected'}) end\n"
    "end\n"
    "send(q, 'hold')\n"
    "local last = 0\n"
    "while true do\n"
    "  local what, mb, _, why = receive()\n"
    "  if what == 'holds' then last = mb\n"
    "  elseif what == 'DOWN' then puts(last >= 14.4 and last <= 17.6 and 'right' or last, why) break end\n"
    "end\n";

/* A quarter of the limit is alive, half of it is garbage, and a string of a third is made through a buffer.
 */
static const char garbage[] =
    "local keep = {} for i = 1, 4 do keep[i] = ('k'):rep(1 << 20) .. i end\n"
    "local old = {} for i = 1, 8 do old[i] = ('o'):rep(1 << 20) .. i end old = nil\n"
    "local s = ('s'):rep(5 << 20)\n"
    "old = {} for i = 1, 5 do old[i] = ('o'):rep(1 << 20) .. i end old = nil\n"
    "local parts = {} for i = 1, 3 do parts[i] = ('p'):rep(1 << 20) end\n"
    "s = nil\n"
    "puts(#table.concat(parts) >> 20, ('%s'):format(keep[1]):sub(1, 1))\n";

/* The memory of a string passes to the process that is spawned with it, even when its maker ends. */
static const char heirs[] =
    "local function heir(n, strings)\n"
    "  if n == 0 then return send('judge', 'held', 30) end\n"
    "  strings[n] = ('h'):rep(2 << 20) .. n\n"
    "  local a, b, c, d, e = strings[1], strings[2], strings[3], strings[4], strings[5]\n"
    "  local f, g, h, i, j = strings[6], strings[7], strings[8], strings[9], strings[10]\n"
    "  local p = spawn(function() heir(n - 1, {a, b, c, d, e, f, g, h, i, j}) end)\n"
    "  monitor(p)\n"
    "  local _, _, _, why = receive()\n"
    "  exit(why)\n"
    "end\n"
    "register('judge', self())\n"
    "local p = spawn(function() heir(10, {}) end)\n"
    "monitor(p)\n"
    "local what, _, _, why = receive()\n"
    "puts(what, why)\n";

/* A spawn with so many arguments that the stack cannot hold them twice fails, and leaves all as it was. */
static const char arguments[] = "local t = {}\n"
                                "for i = 1, 200000 do t[i] = i end\n"
                                "local function deep(n, ...)\n"
                                "  if n == 0 then return pcall(spawn, function() end, ...) end\n"
                                "  local ok, why = deep(n - 1, ...)\n"
                                "  return ok, why\n"
                                "end\n"
                                "puts((deep(0, table.unpack(t))))\n"
                                "local ok, why = deep(2, table.unpack(t))\n"
                                "puts(ok, why:match('stack overflow'))\n";

static void test_arguments(void) {
  struct host *h = host_new(1, 256 * MIB, NULL);
  char *out = host_run(h, arguments);
  is(out, "true\nfalse\tstack overflow\n", "a spawn with more arguments than the stack has room for fails");
  free(out);
  host_free(h);
}

static const char shared[] =
    "local me, pids, text = self(), {}, ('x'):rep(300 << 10)\n"
    "for i = 1, 5 do pids[i] = spawn(function()\n"
    "  local before = collectgarbage('count') local s = receive()\n"
    "  send(me, #s == 300 << 10 and s:find('[^x]') == nil, collectgarbage('count') - before)\n"
    "  receive() send(me, #s)\n"
    "end) end\n"
    "send_all(pids, text) local sum, good = 0, true\n"
    "for i = 1, 5 do local same, more = receive() sum, good = sum + more, good and same end\n"
    "puts(good, sum < 200)\n";

static const char hoard[] =
    "local a = spawn_monitor(function() local t = {} while true do t[#t + 1] = receive() end end)\n"
    "local b = spawn(function() while true do receive() end end)\n"
    "for i = 1, 400 do send_all({a, b}, ('x'):rep(100 << 10) .. i) sleep(0) end\n"
    "local what, _, _, why = receive() puts(what, why)\n";

static void test_limit(void) {
  struct host *h = host_new(1, 16 * MIB, NULL);
  char *out = host_run(h, evade);
  is(out, "right\tmemory\n", "a process ends at its limit, whoever's garbage it has collected");
  free(out);
  out = host_run(h, garbage);
  is(out, "3\tk\n", "garbage is collected before a string is refused, also one that is made in a buffer");
  free(out);
  out = host_run(h, heirs);
  is(out, "DOWN\tmemory\n", "who is spawned with long strings answers for them");
  free(out);
  out = host_run(h, shared);
  is(out, "true\ttrue\n", "a long string that receivers of one message share counts for none of them");
  free(out);
  out = host_run(h, hoard);
  is(out, "DOWN\tmemory\n", "but who keeps many such strings answers for them");
  free(out);
  free(host_errors(h));
  host_free(h);
}

/* --- what comes back --- */

static bool falls_below(struct host *h, int64_t bytes) {
  struct vm_stats stats;
  for (int64_t end = until(); clock_ns() < end;) {
    vm_stats(h->vm, &stats);
    if (stats.reserved < bytes) return true;
    free(host_run(h, "sleep(5)"));
  }
  return false;
}

static const char killed[] =
    "local pids, me = {}, self()\n"
    "for i = 1, 5 do\n"
    "  pids[i] = spawn(function()\n"
    "    local t = {}\n"
    "    for j = 1, 100000 do t[j] = {j} end\n"
    "    for j = 1, 80 do local row = {} for k = 1, 2048 do row[k] = k end t[#t + 1] = row end\n"
    "    send(me, 'built') receive()\n"
    "  end)\n"
    "end\n"
    "for i = 1, 5 do receive_match({'built'}) end\n"
    "for i = 1, 5 do exit(pids[i], 'kill') end\n";

/* Of 16,000 processes, which take 19 MB, 16 stay. */
static const char survivors[] = "local pids = {}\n"
                                "for i = 1, 16000 do pids[i] = spawn(function() receive() end) end\n"
                                "for i = 1, 16000 do if i % 1000 ~= 500 then exit(pids[i], 'kill') end end\n";

static void test_return(void) {
  struct host *h = host_new(2, 64 * MIB, NULL);
  struct vm_stats stats;
  free(host_run(h, "send(self(), 1)")); /* an isolate is open */
  free(host_run(h, killed));
  ok(falls_below(h, 4 * MIB), "the garbage of killed processes is collected without their isolates' doing");
  free(host_run(h, survivors));
  ok(falls_below(h, 11 * MIB), "so is the memory of isolates of which few processes stay");
  for (int64_t end = until(); vm_stats(h->vm, &stats), stats.processes != 16 && clock_ns() < end;)
    sched_yield();
  ok(stats.processes == 16 && stats.reserved >= stats.heaps - 64 * 1024, "whose survivors live on");
  host_free(h);
}

/* --- the bound of the node --- */

static _Atomic int64_t rss;

static int64_t fake_rss(void *data) {
  (void)data;
  return atomic_load(&rss);
}

static void set_rss(struct host *h, int64_t bytes) {
  atomic_store(&rss, bytes);
  vm_measure(h->vm);
}

/* Runs the code, again and again, until the output has the text.  Each time the memory is measured, because a
 * scheduler may have done so just before it changed. */
static bool prints(struct host *h, const char *code, const char *text) {
  for (int64_t end = until(); clock_ns() < end;) {
    vm_measure(h->vm);
    char *out = host_run(h, code);
    bool same = strstr(out, text);
    free(out);
    if (same) return true;
  }
  return false;
}

static const char holder[] =
    "local t = {} for i = 1, 80 do t[i] = ('x'):rep(1 << 20) .. i end\n"
    "register('holder', self())\n"
    "while true do\n"
    "  local what, from = receive()\n"
    "  if what == 'grow' then\n"
    "    for i = 1, 1000 do t[i] = ('x'):rep(1 << 10) .. i sleep(1) end\n"
    "  else\n"
    "    local _, sends = pcall(send, from, 'hello')\n"
    "    local _, spawns = pcall(spawn, function() end)\n"
    "    puts((tostring(sends) .. tostring(spawns)):find('max.memory.*max.memory') and 'denied' or 'free')\n"
    "  end\n"
    "end\n";

static const char sender[] = "register('sender', self())\n"
                             "for i = 1, 120 do send('sink', ('x'):rep(1 << 20) .. i) end\n";

/* --- messages that are larger than a process --- */

/* The receiver holds so much that the list has no room beside it.  It says what it got, and that it lives. */
static const char crowded[] = "local me = self()\n"
                              "local p = spawn(function()\n"
                              "  local held = {('x'):rep(20 << 20), ('y'):rep(20 << 20)}\n"
                              "  send(me, 'ready')\n"
                              "  local what, list, last = receive()\n"
                              "  local ok, why = pcall(function() return #list end)\n"
                              "  send(me, what, list.error, last, ok, why, #held)\n"
                              "  send(me, #receive())\n"
                              "end)\n"
                              "receive()\n"
                              "local list = {} for i = 1, 1 << 21 do list[i] = 1 end\n"
                              "send(p, 'list', list, 'last') puts(receive())\n"
                              "send(p, {1, 2, 3}) puts(receive())\n";

static const char endless[] = "local t = {} for i = 1, 60 do t = {t, t} end\n"
                              "puts(pcall(send, self(), 'x', t))\n"
                              "puts(pcall(spawn, function() end, t))\n";

/* What a process makes of a message from outside. */
static char *receives(struct host *h, struct term_writer *w, uint32_t count) {
  npid down, pid = host_spawn(h,
                              "local first, list, last = receive()\n"
                              "exit(first.error or first .. '|' .. list.error .. '|' .. last)\n",
                              &down, NULL);
  vm_deliver(h->vm, signal_new(SIGNAL_MESSAGE, pid, h->tester, NPID_NONE, term_from_writer(w, count)));
  struct signal *s = host_wait(h, SIGNAL_DOWN, down);
  struct term_reader r = term_read(s ? s->term : NULL);
  struct term_value v = term_next(&r);
  char *text = v.tag == TERM_STR ? strndup(v.s, v.len) : strdup("no text");
  signal_free(s);
  return text;
}

static void test_outside(struct host *h) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "first");
  size_t at = term_open(&w, TERM_LIST);
  for (int i = 0; i < 2000000; i++) term_open(&w, TERM_LIST);
  term_set_count(&w, at, 2000000);
  term_put_text(&w, "last");
  char *text = receives(h, &w, 3);
  is(text, "first|a table of 2000000 values, which the memory of this process has no room for|last",
     "so does one from outside");
  free(text);
  term_writer_clear(&w);
  for (int i = 0; i < 2000000; i++) term_put_int(&w, i);
  text = receives(h, &w, 2000000);
  is(text, "a message of 2000000 values, which the stack of this process has no room for",
     "and a message of more values than a stack has room for");
  free(text);
  term_writer_finish(&w);
}

static void test_messages(void) {
  struct host *h = host_new(2, 64 * MIB, NULL);
  char *out = host_run(h, crowded);
  is(out,
     "list\ta table of 2097152 values, which the memory of this process has no room for\tlast\tfalse\t"
     "test:6: a table of 2097152 values, which the memory of this process has no room for\t2\n3\n",
     "a message without room at its receiver arrives as a value that says so, and the receiver lives");
  free(out);
  out = host_run(h, endless);
  is(out,
     "false\tmessage[2]: larger than the memory of a process may be (64 MiB)\n"
     "false\targument[1]: larger than the memory of a process may be (64 MiB)\n",
     "a message for which no process has room is refused, also if the sender's tables are small");
  free(out);
  test_outside(h);
  host_free(h);
}

static void test_node(void) {
  struct host *h = host_new_with(&(struct vm_config){
      .schedulers = 2, .heap_max = (size_t)256 * MIB, .memory_max = (size_t)200 * MIB, .rss = fake_rss});
  struct vm_stats stats;
  npid monitor, sent;
  char why[256] = "";
  set_rss(h, 100 * MIB);
  host_spawn(h, holder, &monitor, why);
  host_spawn(h, "register('sink', self()) receive_match({'never'})", NULL, NULL);
  ok(prints(h, "puts(whereis('holder') ~= nil, whereis('sink') ~= nil)", "true\ttrue\n"),
     "below the bound processes do as they like");

  set_rss(h, 205 * MIB);
  vm_stats(h->vm, &stats);
  ok(stats.is_short && stats.shortages == 1, "above it the memory is short");
  ok(prints(h, "send('holder', 'ask', self()) sleep(1)", "denied"),
     "who holds most fails to send and to spawn, and is told why; others do not");
  host_spawn(h, sender, &sent, why);
  ok(prints(h, "local p = whereis('sender') puts(p and process_info(p).state)", "send\n"),
     "a mailbox of more than its share counts as full: its senders wait");
  vm_stats(h->vm, &stats);
  ok(stats.mail < 110 * MIB, "with %ld MB in it", (long)(stats.mail / MIB));

  set_rss(h, 195 * MIB);
  vm_stats(h->vm, &stats);
  ok(stats.is_short, "just below the bound the memory is still short");
  set_rss(h, 150 * MIB);
  ok(prints(h, "puts(whereis('sender'))", "nil"), "when the shortage ends, senders go on,");
  struct signal *down = host_wait(h, SIGNAL_DOWN, sent);
  ok(down && down->term && term_is_word(down->term, "normal"), "to the end");
  signal_free(down);
  ok(prints(h, "send('holder', 'ask', self()) sleep(1)", "free"), "and the holder is free again");

  free(host_run(h, "send('holder', 'grow')"));
  set_rss(h, 220 * MIB);
  ok(host_spawn(h, "puts(1)", NULL, why) == NPID_NONE && strstr(why, "--max-memory"),
     "far above it nothing is spawned");
  down = host_wait(h, SIGNAL_DOWN, monitor);
  ok(down && down->term && term_is_word(down->term, "memory"), "and who holds most and allocates ends");
  signal_free(down);
  set_rss(h, 150 * MIB);
  char *errors = host_errors(h), *out = host_run(h, "puts('free')");
  ok(strstr(errors, BUDGET_TEXT) != NULL, "with a message that says why");
  is(out, "free\n", "then all is as before");
  free(errors);
  free(out);
  host_free(h);
}

int main(void) {
  test_limit();
  test_arguments();
  test_return();
  test_messages();
  test_node();
  return tap_end();
}
