/* The rules of the Erlang reference manual, "Processes", one by one: links, monitors, exits. */
#include "tap.h"
#include "vm_host.h"

#include <stdlib.h>
#include <time.h>

static struct host *host;

/* Runs each program twice: with its children in the same isolate, and in other isolates. */
static void run(const char *what, const char *code, const char *want) {
  static const char crowd[] = "for i = 1, 80 do spawn(function() receive() end) end ";
  char far[4096];
  char *got = host_run(host, code);
  is(got, want, "%s", what);
  free(got);
  snprintf(far, sizeof far, "%s%s", crowd, code);
  got = host_run(host, far);
  is(got, want, "%s (between isolates)", what);
  free(got);
}

static void test_links(void) {
  run("an error takes linked processes along",
      "trap_exit(true) local a = spawn_link(function() spawn_link(function() error('x', 0) end) receive() "
      "end)\n"
      "local e, p, why = receive() puts(e, p == a, why[1], why[2])",
      "EXIT\ttrue\terror\tx\n");
  run("a normal end does not", "local p = spawn_link(function() end) sleep(10) puts('alive')", "alive\n");
  run("a normal end is told to who traps",
      "trap_exit(true) local p = spawn_link(function() end) local e, q, why = receive() puts(e, q == p, why)",
      "EXIT\ttrue\tnormal\n");
  run("link to a process that is gone: noproc",
      "trap_exit(true) local p, ref = spawn_monitor(function() end) receive() link(p) local e, q, why = "
      "receive()\n"
      "puts(e, q == p, why)",
      "EXIT\ttrue\tnoproc\n");
  run("without trapping that ends the caller",
      "local p, ref = spawn_monitor(function() local q, r = spawn_monitor(function() end) receive() link(q) "
      "receive() end)\n"
      "local _, _, _, why = receive() puts(why)",
      "noproc\n");
  run("unlink: no signal comes any more",
      "local p = spawn_link(function() receive() error('x') end) group_leader(self(), p)\n"
      "unlink(p) send(p, 1) local t = receive() puts(t)",
      "stderr\n");
  run("a link works both ways",
      "local child local p, ref = spawn_monitor(function() local me = self()\n"
      "  send(receive(), spawn_link(function() receive() end)) receive() end)\n"
      "send(p, self()) child = receive() local r2 = monitor(child) exit(p, 'why')\n"
      "puts(select(4, receive_match({'DOWN', r2})))",
      "why\n");
  run("two links are one link",
      "trap_exit(true) local p = spawn_link(function() receive() end) link(p) link(p) exit(p, 'x') "
      "puts((receive()))\n"
      "puts(receive(20))",
      "EXIT\nnil\n");
  run("a process may link to itself", "link(self()) puts('ok')", "ok\n");
}

static void from_tester(npid to, enum signal_kind kind, npid ref, struct term *term) {
  vm_deliver(host->vm, signal_new(kind, to, host->tester, ref, term));
}

/* The ref of the unlink that the process has sent to the tester. */
static npid unlinked(void) {
  struct signal *s = host_wait(host, SIGNAL_UNLINK, NPID_NONE);
  npid ref = s ? s->ref : NPID_NONE;
  signal_free(s);
  return ref;
}

/* The tester is the other end of a link; its signals cross an unlink on the way. */
static void test_crossing(void) {
  const char *code = "trap_exit(true) local _, t = receive()\n"
                     "local function links() return #process_info(self()).links end\n"
                     "link(t) unlink(t) receive() puts(links(), receive(0))\n"
                     "link(t) unlink(t) receive() puts(links(), receive(0))\n"
                     "link(t) unlink(t) link(t) receive() puts(links()) send(t, 'seen') puts(select('#', "
                     "receive()), links())";
  npid ref, p = host_spawn(host, code, &ref, NULL);
  from_tester(p, SIGNAL_MESSAGE, NPID_NONE, term_build("sp", "with", host->tester));
  npid first = unlinked();
  /* The tester sent LINK before UNLINK reached it, and UNLINK then removed that link. */
  from_tester(p, SIGNAL_LINK, NPID_NONE, NULL);
  from_tester(p, SIGNAL_UNLINK_ACK, first, NULL);
  from_tester(p, SIGNAL_MESSAGE, NPID_NONE, term_build("s", "on"));
  npid second = unlinked();
  /* The link ends before an UNLINK_ACK comes. */
  from_tester(p, SIGNAL_LINK_EXIT, NPID_NONE, term_build("s", "void"));
  from_tester(p, SIGNAL_MESSAGE, NPID_NONE, term_build("s", "on"));
  npid third = unlinked();
  from_tester(p, SIGNAL_UNLINK_ACK, second, NULL);
  /* The acknowledgement is for a link before the present one. */
  from_tester(p, SIGNAL_UNLINK_ACK, third, NULL);
  from_tester(p, SIGNAL_MESSAGE, NPID_NONE, term_build("s", "on"));
  signal_free(host_wait(host, SIGNAL_MESSAGE, NPID_NONE));
  from_tester(p, SIGNAL_LINK_EXIT, NPID_NONE, term_build("s", "boom"));
  signal_free(host_wait(host, SIGNAL_DOWN, ref));
  char *got = host_run(host, "");
  is(got, "0\tnil\n0\tnil\n1\n3\t0\n", "what crosses an unlink is void; a link made after it is not");
  free(got);
}

static void test_exits(void) {
  run("exit(pid, reason) ends it with the reason",
      "local p, r = spawn_monitor(function() receive() end) exit(p, {'a', 1}) local _, _, q, why = "
      "receive()\n"
      "puts(q == p, inspect(why))",
      "true\t{\"a\", 1}\n");
  run("exit(pid, 'normal') does not",
      "local p, r = spawn_monitor(function() receive() end) exit(p, 'normal') puts(receive(20))", "nil\n");
  run("unless it is its own",
      "local p, r = spawn_monitor(function() exit(self(), 'normal') receive() end) puts(select(4, "
      "receive()))",
      "normal\n");
  run("who traps gets exit(pid, 'normal') as a message",
      "local me = self() local p = spawn(function() trap_exit(true) send(me, 'ready') local e, f, why = "
      "receive()\n"
      "  send(me, e, f == me, why) end) receive() exit(p, 'normal') puts(receive())",
      "EXIT\ttrue\tnormal\n");
  run("kill cannot be trapped, and becomes killed",
      "local me = self() local p, r = spawn_monitor(function() trap_exit(true) send(me, 'ready')\n"
      "  while true do receive() end end) receive() exit(p, 'kill') puts(select(4, receive()))",
      "killed\n");
  run("killed reaches links, where it can be trapped",
      "trap_exit(true) local p = spawn_link(function() receive() end) exit(p, 'kill') puts(select(3, "
      "receive()))",
      "killed\n");
  run("kill by way of a link is only a word",
      "local me = self() local p = spawn(function() trap_exit(true) spawn_link(function() exit('kill') end)\n"
      "  send(me, (select(3, receive()))) end) puts(receive())",
      "kill\n");
  run("exit(reason) ends the caller at once",
      "local p, r = spawn_monitor(function() exit('bye') puts('never') end) puts(select(4, receive()))",
      "bye\n");
  run("pcall does not catch it",
      "local p, r = spawn_monitor(function() pcall(exit, 'bye') puts('never') end) puts(select(4, "
      "receive()))",
      "bye\n");
  run("nor from within a callback of sort",
      "local p, r = spawn_monitor(function() pcall(table.sort, {2, 1, 3}, function() exit('bye') end) while "
      "true do sleep(1) end end)\n"
      "puts(select(4, receive()))",
      "bye\n");
  run("trap_exit tells what it was", "puts(trap_exit(true), trap_exit(false), trap_exit(false))",
      "false\ttrue\tfalse\n");
  run("an error's reason has message and traceback",
      "local p, r = spawn_monitor(function() group_leader(self()) local x = nil + 1 end)\n"
      "local why = select(4, receive()) puts(#why, why[1], why[2]:match('arithmetic') , why[3]:match('^stack "
      "traceback'))",
      "3\terror\tarithmetic\tstack traceback\n");
#ifndef __SANITIZE_THREAD__ /* which holds signals back until a system call: nothing is preempted there */
  run("a process in an endless loop can be killed",
      "local p, r = spawn_monitor(function() while true do end end) sleep(5) exit(p, 'kill') puts(select(4, "
      "receive()))",
      "killed\n");
#endif
  run("a process waiting for a call can be killed",
      "local p, r = spawn_monitor(function() node.ping('nowhere@x') end) puts(select(4, receive()))",
      "normal\n");
  run("exit to nobody is silent", "local p, r = spawn_monitor(function() end) receive() puts(exit(p, 'x'))",
      "true\n");
}

static void test_monitors(void) {
  run("a monitor fires once",
      "local p = spawn(function() receive() end) local r = monitor(p) send(p, 1)\n"
      "local d, ref, q, why = receive() puts(d, ref == r, q == p, why) puts(receive(20))",
      "DOWN\ttrue\ttrue\tnormal\nnil\n");
  run("each monitor fires",
      "local p = spawn(function() receive() end) local a, b = monitor(p), monitor(p) send(p, 1)\n"
      "local _, x = receive() local _, y = receive() puts(x ~= y, (x == a or x == b) and (y == a or y == b))",
      "true\ttrue\n");
  run("of a process that is gone: noproc",
      "local p, r = spawn_monitor(function() end) receive() local s = monitor(p) local d, ref, q, why = "
      "receive()\n"
      "puts(d, ref == s, q == p, why)",
      "DOWN\ttrue\ttrue\tnoproc\n");
  run("demonitor: it does not fire",
      "local p, r = spawn_monitor(function() receive() end) puts(demonitor(r)) send(p, 1) puts(receive(20), "
      "demonitor(r))",
      "true\nnil\tfalse\n");
  run("demonitor with flush takes the message back",
      "local p, r = spawn_monitor(function() end) sleep(20) demonitor(r, true) puts(receive(0))", "nil\n");
  run("by name",
      "local p = spawn(function() receive() end) register('watched', p) local r = monitor('watched')\n"
      "exit(p, 'x') local _, ref, q, why = receive() puts(ref == r, q == p, why)",
      "true\ttrue\tx\n");
  run("by a name that nobody has",
      "local r = monitor('nobody') local d, ref, q, why = receive() puts(d, ref == r, q, why)",
      "DOWN\ttrue\tnil\tnoproc\n");
  run("a monitor goes one way",
      "local p = spawn(function(q) monitor(q) error('x', 0) end, self()) sleep(10) puts('alive')", "alive\n");
  run("references are unique",
      "local p = spawn(function() receive() end) puts(monitor(p) ~= monitor(p), "
      "inspect(monitor(p)):match('^#Ref<'))",
      "true\t#Ref<\n");
}

static void test_order(void) {
  run("signals between a pair keep their order",
      "local me = self() local p = spawn(function() for i = 1, 1000 do send(me, i) end exit('end') end) "
      "local r = monitor(p)\n"
      "for i = 1, 1000 do local x = receive() if x == 'DOWN' or x ~= i then puts('out of order', i, x) "
      "return end end\n"
      "puts((receive()))",
      "DOWN\n");
  run("messages sent before an exit signal arrive before it",
      "local p, r = spawn_monitor(function() local n = 0 while true do local x, who = receive() n = n + 1\n"
      "  if x == 'last' then send(who, n) end end end)\n"
      "for i = 1, 100 do send(p, i) end send(p, 'last', self()) exit(p, 'kill')\n"
      "local x = receive() puts(x == 101 or x == 'DOWN')",
      "true\n");
  run("spawn_monitor of an error",
      "local p, r = spawn_monitor(function() error('boom', 0) end) local _, ref, q, why = receive()\n"
      "puts(ref == r, q == p, why[2])",
      "true\ttrue\tboom\n");
}

static void test_leaders(void) {
  run("children inherit the leader",
      "local console, me = group_leader(), self() group_leader(me) spawn(function() puts('hi') end)\n"
      "local s, p, bytes = receive() group_leader(console) puts(s, inspect(bytes))",
      "stdout\t\"hi\\n\"\n");
  run("puts to a leader",
      "puts(self(), 'x') local s, p, bytes = receive() puts(s, p == self(), inspect(bytes))",
      "stdout\ttrue\t\"x\\n\"\n");
  run("a lone pid is printed", "local t = tostring(self()) puts(#t > 5)", "true\n");
  run("an error is told on stderr of the leader",
      "local me = self() local p = spawn(function() group_leader(me) error('boom', 0) end)\n"
      "local s, q, bytes = receive() puts(s, q == p, bytes:match('ended: (.-)\\n'), bytes:match('stack "
      "traceback'))",
      "stderr\ttrue\tboom\tstack traceback\n");
  run("the leader of another",
      "local me = self() local p = spawn(function() receive() puts('x') end)\n"
      "group_leader(me, p) send(p, 1) puts((receive()))",
      "stdout\n");
  char *got = host_run(host, "for i = 1, 100 do io.write(('x'):rep(9999), '\\n') end");
  ok(strlen(got) == 1000000, "a megabyte of output goes through the window");
  free(got);
}

/* Waits until so many bytes have been put. */
static void await_output(size_t bytes) {
  for (int i = 0; i < 10000; i++) {
    pthread_mutex_lock(&host->lock);
    bool there = host->output.len >= bytes;
    pthread_mutex_unlock(&host->lock);
    if (there) return;
    struct timespec ms = {0, 1000000};
    nanosleep(&ms, NULL);
  }
}

static void test_nodes(void) {
  const char *code = "node.monitor('far@there') local p = node.connect('far@there') puts('ready')\n"
                     "local d, r, q, why = receive() puts(d, why)";
  npid ref;
  host_spawn(host, code, &ref, NULL);
  await_output(6);
  vm_node_down(host->vm, host->far, nodetab_part(host->nodes, host->far), "noconnection");
  struct signal *s = host_wait(host, SIGNAL_DOWN, ref);
  ok(s, "a process that watches a node is told of its loss");
  signal_free(s);
  char *got = host_run(host, "");
  is(got, "ready\nDOWN\tnoconnection\n", "with the reason");
  free(got);
}

/* A connection is lost and a link is made over the next one before the process gets the signal of the
 * loss. */
static void test_connections(void) {
  const char *code = "trap_exit(true) puts('ready') local far = receive()\n"
                     "link(far) local ref = monitor(far) puts('linked')\n"
                     "local e, p, why = receive() puts(e, p == far, why)\n"
                     "local d, r, q, what = receive() puts(d, r == ref, q == far, what)\n"
                     "puts(#process_info(self()).links, receive(0))";
  npid ref, pid = host_spawn(host, code, &ref, NULL);
  await_output(6);
  uint32_t first = nodetab_part(host->nodes, host->far);
  npid other = npid_make(host->far, 9);
  vm_deliver(host->vm, signal_new(SIGNAL_MESSAGE, pid, NPID_NONE, NPID_NONE, term_build("p", other)));
  await_output(13);
  vm_node_down(host->vm, host->far, first, "earlier");
  static const enum signal_kind late[] = {SIGNAL_LINK_EXIT, SIGNAL_UNLINK};
  /* Signals that came over the first connection and are handled late. */
  for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
    struct signal *s = signal_new(late[i], pid, other, npid_as_ref(other), term_build("s", "late"));
    s->epoch = first;
    vm_deliver(host->vm, s);
  }
  vm_node_down(host->vm, host->far, nodetab_part(host->nodes, host->far), "noconnection");
  signal_free(host_wait(host, SIGNAL_DOWN, ref));
  char *got = host_run(host, "");
  is(got, "ready\nlinked\nEXIT\ttrue\tnoconnection\nDOWN\ttrue\ttrue\tnoconnection\n0\tnil\n",
     "a link and a monitor go with their own connection only");
  free(got);
}

static void test_urgent(void) {
  run("send_urgent overtakes what waits, in its own order",
      "local me = self() local p = spawn(function() for i = 1, 1000 do send(me, i) end\n"
      "  send_urgent(me, 'a', {1}) send_urgent(me, 'b') send(me, 'done') end)\n"
      "receive_match({'done'}) local a, t = receive()\n"
      "puts(a, t[1], receive()) puts(receive())",
      "a\t1\tb\n1\n");
  run("a receive_match that waits behind others finds it, by values and by a predicate",
      "local me = self() for i = 1, 10 do send(me, i) end\n"
      "spawn(function() sleep(5) send_urgent(me, 'x') sleep(5) send_urgent(me, 'y') end)\n"
      "puts(receive_match({'x'}), receive_match(function(v) return v == 'y' end), receive())",
      "x\ty\t1\n");
  run("also one that comes while the predicate waits",
      "local me, first = self(), true send(me, 'a') send(me, 'b')\n"
      "local function wanted(v) if first then first = false send_urgent(me, 'u') sleep(2) end return v == "
      "'a' end\n"
      "puts(receive_match(wanted), receive(), receive())",
      "a\tu\tb\n");
  run("among a million messages it is taken within milliseconds",
      "local me = self() for i = 1, 1000000 do send(me, i) end\n"
      "local at = monotonic() send_urgent(me, 'now') local got = receive()\n"
      "puts(got, monotonic() - at < 50000000)",
      "now\ttrue\n");
  run("whom it cannot reach", "puts(pcall(send_urgent, 'nobody', 1)) puts(pcall(send_urgent, 5, 1))",
      "false\tno process has the name 'nobody'\n"
      "false\tbad argument #1 to 'send_urgent' (a pid or a name of this node expected)\n");
}

static void test_send_all(void) {
  run("send_all: each process of the list gets the message, as often as it is in it",
      "local me, pids = self(), {}\n"
      "for i = 1, 50 do pids[i] = spawn(function() local a, t = receive() send(me, a + t.x) end) end\n"
      "pids[51], pids[52] = me, me send_all(pids, 1, {x = 6}) local sum = 0\n"
      "for i = 1, 52 do local a, t = receive() sum = sum + a + (t and t.x or 0) end puts(sum)",
      "364\n");
  run("after what was sent before, and before what is sent next",
      "local me = self() local p = spawn(function() for i = 1, 3 do send(me, (receive())) end end)\n"
      "send(p, 1) send_all({p}, 2) send(p, 3) puts(receive(), receive(), receive())",
      "1\t2\t3\n");
  run("an alias in the list takes one message",
      "local p = spawn(function() local ref = receive() send_all({ref, ref}, ref, 1) receive() end)\n"
      "local ref = monitor(p, true) send(p, ref) puts(receive() == ref, receive(10), demonitor(ref))",
      "true\tnil\tfalse\n");
  run("whose end is no error, nor is an empty list",
      "local p = spawn_monitor(function() end) receive() send_all({p}, 1) send_all({}, 1) puts('fine')",
      "fine\n");
  run("a value that cannot be sent, or a receiver that is none, is an error before anything is sent",
      "local me = self() local _, a = pcall(send_all, {me}, 1, print, (io.open('/dev/null')))\n"
      "local _, b = pcall(send_all, {me, me, 'x'}, 1) local _, c = pcall(send_all, me, 1)\n"
      "local _, d = pcall(send_all, {x = me}, 1)\n"
      "puts(a) puts(b) puts(c) puts(d) puts(receive(5))",
      "message[3]: a userdata cannot be sent\n"
      "bad argument #1 to 'send_all' (receiver 3 is no pid or alias)\n"
      "bad argument #1 to 'send_all' (table expected, got pid)\n"
      "bad argument #1 to 'send_all' (a list of pids expected)\nnil\n");
  run("others run while a long list is worked off",
      "local me, pids, n = self(), {}, 400000 local p = spawn(function()\n"
      "  for i = 1, 3 do sleep(1) end send(me, 'ticked') end)\n"
      "for i = 1, n do pids[i] = me end send_all(pids, 'x') local at\n"
      "for i = 1, n + 1 do if receive() == 'ticked' then at = i end end puts(at <= n, receive(0))",
      "true\tnil\n");
}

static void test_aliases(void) {
  run("an alias takes one message, which removes the monitor",
      "local me = self()\n"
      "local p = spawn(function() local ref = receive() send(ref, ref, 'one') send(ref, ref, {'two'})\n"
      "  send(me, 'end') receive() end)\n"
      "local ref = monitor(p, true) send(p, ref) local a, b = receive_match(ref) puts(a == ref, b)\n"
      "puts(receive()) puts(demonitor(ref)) send(p, 'x') puts(receive(20))",
      "true\tone\nend\nfalse\nnil\n");
  run("also a message of a table",
      "local p = spawn(function() send(receive(), {'one'}) receive() end)\n"
      "local ref = monitor(p, true) send(p, ref) puts(receive()[1]) puts(demonitor(ref))",
      "one\nfalse\n");
  run("what is sent to it after a demonitor is dropped",
      "local me = self()\n"
      "local p = spawn(function() local ref = receive() receive() send(ref, 'late') send(me, 'end') end)\n"
      "local ref = monitor(p, true) send(p, ref) puts(receive_match(ref, 1)) puts(demonitor(ref))\n"
      "send(p, 'go') puts(receive()) puts(receive(20))",
      "nil\ntrue\nend\nnil\n");
  run("it ends with the DOWN of its monitor",
      "local p = spawn(function() receive() end) local ref = monitor(p, true) exit(p, 'kill')\n"
      "puts(select(4, receive_match(ref))) send(ref, 'x') puts(receive(10))",
      "killed\nnil\n");
  run("and with its process",
      "local me = self()\n"
      "local p = spawn(function() send(me, monitor(me, true)) end) local ref = receive() sleep(5)\n"
      "send(ref, 'x') puts(receive(10))",
      "nil\n");
  run("the end of a process that has an alias leaves the aliases of its watchers counted right",
      "local c, me = spawn(function() receive() end), self()\n"
      "local function round() local b = spawn(function() monitor(c, true) receive() end)\n"
      "  local ref = monitor(b, true) send(b, 'end') receive_match(ref) end\n"
      "for _ = 1, 100 do round() end local before = process_info(me).memory\n"
      "for _ = 1, 1000 do round() end puts(process_info(me).memory - before < 32000)",
      "true\n");
  run("a monitor without an alias is no address",
      "local ref = monitor(spawn(function() receive() end)) send(ref, 'x') puts(receive(5), demonitor(ref))",
      "nil\ttrue\n");
  run("an alias takes messages that a receive_match waits for",
      "local p = spawn(function() local ref = receive() sleep(5) send(ref, 'other', ref, 3) receive() end)\n"
      "local ref = monitor(p, true) send(p, ref) puts((receive_match(ref)))",
      "other\n");
  run("many aliases over many blocks of references",
      "local p, refs = spawn(function() while true do local r = receive() send(r, r) end end), {}\n"
      "for i = 1, 5000 do refs[i] = monitor(p, true) end\n"
      "for i = 5000, 1, -1 do send(p, refs[i]) end\n"
      "for i = 5000, 1, -1 do assert(receive() == refs[i]) end\n"
      "for i = 1, 3000 do monitor(p) end puts(demonitor(refs[1]), #process_info(p).monitored_by)",
      "false\t3000\n");
}

/* How each wait, and code that computes, is interrupted: it gets the error once, and goes on after it. */
static void test_interrupts(void) {
  static const char interrupted[] = "local me = self()\n"
                                    "local function wait() send(me, 'begins') %s end\n"
                                    "local p = spawn(function()\n"
                                    "  send(me, pcall(wait))\n"
                                    "  sleep(1) send(me, receive())\n"
                                    "end)\n"
                                    "receive() for _ = 1, 3 do sleep(0) end interrupt(p)\n"
                                    "puts(receive()) send(p, 'goes on') puts(receive())";
  static const char *const waits[] = {
      "receive()",
      "receive(60000)",
      "receive_match({'never'})",
      "receive_match(function() end)",
      "sleep(60000)",
#ifndef __SANITIZE_THREAD__ /* which holds signals back: nothing is preempted there */
      "while true do end",
      "table.sort({1, 2, 3}, function() while true do end end)",
      "string.gsub('x', 'x', function() while true do end end)",
#endif
  };
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
    char code[1024];
    snprintf(code, sizeof code, interrupted, waits[i]);
    run(waits[i], code, "false\tinterrupted\ngoes on\n");
  }
  run("who is interrupted loses no message",
      "local me, n = self(), 0\n"
      "local function wait() send(me, 'in') receive_match({'wanted'}) end\n"
      "local p = spawn(function() while not pcall(wait) do n = n + 1 end send(me, n, receive()) end)\n"
      "for i = 1, 50 do receive() send(p, i) if i % 2 == 0 then sleep(0) end interrupt(p) end\n"
      "receive() send(p, 'wanted') puts(receive())",
      "50\t1\n");
  run("a process that has ended cannot be interrupted, nor one itself",
      "local p, ref = spawn_monitor(function() end) receive() interrupt(p)\n"
      "puts((select(2, pcall(interrupt, self()))))",
      "bad argument #1 to 'interrupt' (another process expected)\n");
}

int main(void) {
  host = host_new(2, 0, NULL);
  test_aliases();
  test_interrupts();
  test_send_all();
  test_urgent();
  test_links();
  test_crossing();
  test_exits();
  test_monitors();
  test_order();
  test_leaders();
  test_nodes();
  test_connections();
  host_free(host);
  return tap_end();
}
