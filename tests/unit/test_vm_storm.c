/* A storm of spawns, sends, links, monitors and exits over several schedulers and from outside, for the
 * sanitizers to check; at its end no process, name or link may remain. */
#include "tap.h"
#include "vm_host.h"

#include <stdlib.h>
#include <time.h>

#ifdef __SANITIZE_THREAD__ /* each tick's signal is expensive under ThreadSanitizer */
#define ROUNDS "5"
#define PAIRS  "50"
#else
#define ROUNDS "30"
#define PAIRS  "400"
#endif

static const char storm[] =
    "trap_exit(true)\n"
    "local me = self()\n"
    "local function worker(i, peer)\n"
    "  if peer and i % 3 == 0 then link(peer) end\n"
    "  if peer and i % 4 == 0 then monitor(peer) end\n"
    "  if i % 5 == 0 then register('worker' .. tostring(self()):gsub('[<>]', ''), self()) end\n"
    "  send_after(i % 7, self(), 'later')\n"
    "  receive(i % 3)\n"
    "  if i % 11 == 0 then exit('odd') end\n"
    "  send(me, 'done', i)\n"
    "  receive_match({'later'}, 5)\n"
    "end\n"
    "for round = 1, " ROUNDS " do\n"
    "  local last\n"
    "  local waiting = {}\n"
    "  for i = 1, 150 do\n"
    "    local pid, ref = spawn_monitor(worker, i, last)\n"
    "    waiting[ref] = true\n"
    "    if i % 13 == 0 then exit(pid, 'kill') end\n"
    "    if i % 17 == 0 then send(pid, {i, {pid}}) end\n"
    "    last = pid\n"
    "  end\n"
    "  while next(waiting) do\n"
    "    local kind, ref = receive()\n"
    "    if kind == 'DOWN' then waiting[ref] = nil end\n"
    "  end\n"
    "end\n"
    "puts('calm')\n";

/* Two processes, in different isolates, link and unlink each other at random. At rest both must agree whether
 * they are linked. The test then has one of them link (which changes nothing when that process is linked
 * already) or unlink: it gets the exit signal of the other process exactly when it has linked. */
static const char crossing[] =
    "local me, crowd = self(), {}\n"
    "for i = 1, 80 do crowd[i] = spawn(receive) end\n" /* so that children are placed in other isolates */
    "local function party(seed)\n"
    "  trap_exit(true)\n"
    "  local _, other = receive_match({'with'})\n"
    "  for i = 1, 60 do\n"
    "    seed = (seed * 1103515245 + 12345) % 2147483648\n"
    "    local what = seed // 65536 % 7\n"
    "    if what < 3 then link(other) elseif what < 6 then unlink(other) else sleep(0) end\n"
    "  end\n"
    "  send(other, 'even') receive_match({'even'})\n"
    "  send(me, self(), 'calm')\n"
    "  local op = receive_match(function(w) return w == 'link' or w == 'unlink' or w == 'die' end)\n"
    "  if op == 'die' then exit('end') end\n"
    "  local ref = monitor(other)\n"
    "  if op == 'link' then link(other) else unlink(other) end\n"
    "  send(other, 'die') receive_match({'DOWN', ref})\n"
    "  send(me, self(), (receive_match({'EXIT', other}, 0) == 'EXIT') == (op == 'link'))\n"
    "end\n"
    "local wrong = 0\n"
    "for pair = 1, " PAIRS " do\n"
    "  spawn(function() end)\n"
    "  local a, b = spawn(party, pair), spawn(party, pair * 7919)\n"
    "  send(a, 'with', b) send(b, 'with', a)\n"
    "  receive_match({a}) receive_match({b})\n"
    "  if pair % 2 == 0 then a, b = b, a end\n"
    "  send(a, pair % 3 == 0 and 'unlink' or 'link')\n"
    "  if not select(2, receive_match({a})) then wrong = wrong + 1 end\n"
    "end\n"
    "for _, pid in ipairs(crowd) do send(pid, 'go') end\n"
    "puts(wrong)\n";

static void test_crossing(struct host *h) {
  char *out = host_run(h, crossing);
  is(out, "0\n", "links and unlinks that cross leave both ends of one mind");
  free(out);
}

static void test_storm(struct host *h, int programs) {
  npid refs[8];
  for (int i = 0; i < programs; i++) host_spawn(h, storm, &refs[i], NULL);
  for (int i = 0; i < programs; i++) {
    struct signal *s = host_wait(h, SIGNAL_DOWN, refs[i]);
    ok(s, "storm %d ends", i + 1);
    signal_free(s);
  }
  char *out = host_run(h, "");
  size_t calm = 0;
  for (const char *at = out; (at = strstr(at, "calm")); at++) calm++;
  ok(calm == (size_t)programs, "all of them in order");
  free(out);
}

/* Sends signals into the storm from the outside thread, many of them to pids that no longer exist. */
static void test_outside(struct host *h) {
  npid ref, refs[50];
  for (int i = 0; i < 50; i++)
    host_spawn(h, "for i = 1, 20 do receive(1) spawn(function() receive(1) end) end", &refs[i], NULL);
  for (uint64_t n = 1; n < 3000; n++) {
    npid to = npid_make(0, n);
    if (vm_host_process(h->vm, to)) continue;
    ref = vm_ref(h->vm);
    vm_deliver(h->vm, signal_new(SIGNAL_MONITOR, to, h->tester, ref, NULL));
    vm_deliver(h->vm, signal_new(SIGNAL_MESSAGE, to, h->tester, NPID_NONE, term_build("i", (int64_t)n)));
    vm_deliver(h->vm, signal_new(SIGNAL_DEMONITOR, to, h->tester, ref, NULL));
  }
  int ended = 0;
  for (int i = 0; i < 50; i++) {
    struct signal *s = host_wait(h, SIGNAL_DOWN, refs[i]);
    ended += s != NULL;
    signal_free(s);
  }
  ok(ended == 50, "processes spawned and signalled from outside end");
}

static int64_t wait_live(struct host *h, int64_t want) {
  struct vm_stats stats;
  for (int i = 0; i < 2000; i++) {
    vm_stats(h->vm, &stats);
    if (stats.processes == want) break;
    nanosleep(&(struct timespec){0, 1000000}, NULL);
  }
  return stats.processes;
}

/* Children that are spawned in one turn do not all share a core. */
static void test_spread(void) {
  struct host *h = host_new(2, 0, NULL);
  struct vm_stats stats;
  npid ref;
  host_spawn(h, "for i = 1, 8 do spawn(function() receive() end) end puts('up') receive()", &ref, NULL);
  ok(wait_live(h, 9) == 9, "nine processes live");
  vm_stats(h->vm, &stats);
  ok(stats.isolates > 1, "in %lld isolates", (long long)stats.isolates);
  host_free(h);
}

static void test_stop_busy(void) {
  struct host *h = host_new(4, 0, NULL);
  npid ref;
  for (int i = 0; i < 8; i++)
    host_spawn(
        h,
        "local p = self() for i = 1, 90 do spawn(function() while true do send(p, 1) receive(1) end end) end "
        "while true do receive() end",
        &ref, NULL);
  host_free(h);
  ok(true, "a vm that is busy on all schedulers stops and frees all");
}

int main(void) {
  struct host *h = host_new(4, 0, NULL);
  test_storm(h, 4);
  test_crossing(h);
  test_outside(h);
  int64_t left = wait_live(h, 0);
  ok(left == 0, "no process is left (%lld)", (long long)left);
  ok(names_count(h->names) == 0, "no name is left");
  host_free(h);
  test_spread();
  test_stop_busy();
  return tap_end();
}
