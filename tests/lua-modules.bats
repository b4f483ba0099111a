#!/usr/bin/env bats
# The modules of the process language: server, supervisor, task, group.

load helper

setup() {
  node_setup
  start_node one
}

# --- server ------------------------------------------------------------------------------------------------

# A counter with every callback; its terminate tells the process named "test".
COUNTER='local server, counter = require("server"), {}
  function counter.init(n) return {n = n or 0, open = {}} end
  function counter.handle_call(s, what, from)
    if what == "next" then s.n = s.n + 1 return "reply", s.n end
    if what == "swap" then return "reply", s.n, {n = 100, open = {}} end
    if what == "later" then table.insert(s.open, from) return "noreply" end
    if what == "who" then return "reply", from.caller end
    if what == "slow" then sleep(100) return "reply", "too late" end
    if what == "quit" then return "stop", "done", "bye" end
    if what == "fail" then error("boom", 0) end
    if what == "exit" then exit("gone") end
    if what == "nil" then return "reply", nil end
  end
  function counter.handle_cast(s, what)
    if what == "open" then for _, from in ipairs(s.open) do server.reply(from, "opened") end s.open = {} end
    if what == "stop" then return "stop", "asked" end
    if type(what) == "number" then s.n = what end
  end
  function counter.handle_info(s, ...) send("test", "info", ...) end
  function counter.terminate(s, reason) send("test", "terminate", type(reason) == "table" and reason[2] or reason) end
  register("test", self()) '
COUNTER=${COUNTER//$'\n'/ }

@test "server: call, cast, state changed in place and replaced" {
  lua "$COUNTER"'
    local pid = assert(server.start(counter, nil, 5))
    puts(server.call(pid, "next"), server.call(pid, "next"))
    server.cast(pid, 40) puts(server.call(pid, "next"))
    puts(server.call(pid, "swap"), server.call(pid, "next"))
    puts(server.call(pid, "who") == self(), server.call(pid, "nil"))
    puts(receive(0))'
  assert_output $'6\t7\n41\n41\t101\ntrue\tnil\nnil'
}

@test "server: a module of callbacks, by name" {
  cat >greeter.lua <<'LUA'
local greeter = {}
function greeter.init(greeting) return greeting end
function greeter.handle_call(greeting, name) return "reply", greeting .. ", " .. name end
return greeter
LUA
  start_node three
  run -0 node-spawn -n "three@$HOST" -e 'local server = require("server")
    puts(server.call(assert(server.start("greeter", {name = "g"}, "hello")), "you"), server.call("g", "all"))'
  assert_output $'hello, you\thello, all'
}

@test "server: callbacks share their variables in the server, and only there" {
  lua 'local server, n = require("server"), 0
    local pid = server.start({handle_cast = function() n = n + 1 end, handle_call = function() return "reply", n end})
    server.cast(pid) server.cast(pid) puts(server.call(pid), n)'
  assert_output $'2\t0'
}

@test "server: a reply that is put off, and given by another process" {
  lua "$COUNTER"'
    local pid, me = server.start(counter), self()
    for i = 1, 3 do spawn(function() send(me, "got", require("server").call(pid, "later")) end) end
    local n = 0
    repeat
      server.cast(pid, "open") local kind, what = receive(1) if kind then puts(kind, what) n = n + 1 end
    until n == 3
    pid = server.start({handle_call = function(_, _, from)
      spawn(function() require("server").reply(from, "by another") end) return "noreply" end})
    puts(server.call(pid, 1))'
  assert_output $'got\topened\ngot\topened\ngot\topened\nby another'
}

@test "server: no reply in time is an error, and the late one is never seen" {
  lua "$COUNTER"'
    local pid = server.start(counter)
    puts(select(2, pcall(server.call, pid, "slow", 20)))
    puts(server.call(pid, "next")) puts(receive(50))
    puts(select(2, pcall(server.call, pid, "next", -1))) puts(receive(0))'
  assert_line --index 0 --regexp '^server <0\.[0-9.]+>: no reply within 20 ms$'
  assert_line --index 1 1
  assert_line --index 2 nil
  assert_line --index 3 'server: milliseconds expected, 0 or more, not -1'
  assert_line --index -1 nil
}

@test "server: a call to one that has ended, ends meanwhile or never existed is an error at once" {
  lua "$COUNTER"'
    local function try(dest, what) puts(select(2, pcall(server.call, dest, what, math.huge))) end
    local pid = server.start(counter)
    try(pid, "exit") try(pid, "next") try("nobody") try({"nobody", node.self()}) try(5) try({1, 2})
    pid = server.start(counter) try(pid, "fail") puts(receive_match({"terminate"}))
    pid = server.start(counter) try(pid, "unknown") puts(receive_match({"terminate"}))
    server.cast("nobody", 1) server.cast(pid, 1) puts(receive(0))'
  assert_line --index 0 --regexp 'the call failed: gone$'
  assert_line --index 1 --regexp 'the call failed: noproc$'
  assert_line --index 2 'server: there is no server "nobody"'
  assert_line --index 3 --partial 'server: there is no server {"nobody", '
  assert_line --index 4 'server: a pid, a name, or {name, node} expected, not 5'
  assert_line --index 5 'server: a pid, a name, or {name, node} expected, not {1, 2}'
  assert_line --regexp 'the call failed: boom$'
  assert_line $'terminate\tboom'
  assert_line --regexp 'the call failed: server: handle_call returned nil$'
  assert_line $'terminate\tserver: handle_call returned nil'
  assert_line nil
}

@test "server: a cast never fails" {
  two_nodes
  lua 'local server, two = require("server"), ...
    for _, dest in ipairs{"nobody", {"nobody", node.self()}, {"nobody", two}, {"x", "three@nowhere.invalid"}} do
      puts(pcall(server.cast, dest, 1))
    end
    puts(select(2, pcall(server.call, {"x", "three@nowhere.invalid"}, 1)))
    puts(server.whereis({"x", "three@nowhere.invalid"}))
    puts(pcall(server.start, {}, {node = "three@nowhere.invalid"}))
    puts(select(2, pcall(server.cast, 5, 1)))' "two@$HOST"
  for i in 0 1 2 3; do assert_line --index $i true; done
  assert_line --index 4 --regexp '^server \{"x", "three@nowhere.invalid"\}: three@nowhere.invalid: .*\(resolve\)'
  assert_line --index 5 --regexp $'^nil\tthree@nowhere.invalid: .*\\(resolve\\)'
  assert_line --index 6 --regexp $'^true\tnil\tthree@nowhere.invalid: .*\\(resolve\\)'
  assert_line --index 7 'server: a pid, a name, or {name, node} expected, not 5'
}

@test "server: casts and messages keep their order, by name and node as well" {
  two_nodes
  lua 'local server, two, me = require("server"), ..., self()
    server.start({handle_cast = function(_, n) send(me, n) end, handle_info = function(_, n) send(me, n) end},
      {name = "far", node = two})
    for i = 1, 100, 2 do send({"far", two}, i) server.cast({"far", two}, i + 1) end
    for i = 1, 100 do local n = receive(5000) if n ~= i then puts(n, "is not", i) end end puts("in order")' "two@$HOST"
  assert_output 'in order'
}

# A look at all that is queued takes thousands of times as long as a call.
@test "server: a call, and receive_match of a new reference, pass over a long mailbox" {
  lua 'local server = require("server")
       local srv = server.start({init = function() return 0 end, handle_call = function(st, r) return "reply", r end})
       local mirror = spawn(function() while true do local ref = receive() send(ref, ref) end end)
       local function call(i) assert(server.call(srv, i) == i) end
       local function match() local ref = monitor(mirror, true) send(mirror, ref) receive_match(ref) end
       local function time(f) local t = monotonic() for i = 1, 100 do f(i) end return monotonic() - t end
       local called, matched = time(call), time(match)
       for i = 1, 100000 do send(self(), "queued", i) end
       local slow, slower = time(call), time(match)
       puts(slow < 100 * called or slow, slower < 100 * matched or slower)'
  assert_output "true	true"
}

@test "server: to call itself is an error, not a wait without end" {
  lua 'local server = require("server")
    local pid = server.start({handle_call = function(_, f) return "reply", select(2, pcall(server[f], self(), 1)) end})
    puts(server.call(pid, "call"), server.call(pid, "stop"))'
  assert_output $'server: one that waits for itself waits for ever\tserver: one that waits for itself waits for ever'
}

@test "server: a caller that ends during a call leaves nothing behind" {
  lua 'local server, me = require("server"), self()
    server.start({handle_call = function() send(me, "asked") return "noreply" end}, {name = "s"})
    local caller = spawn(function() server.call("s", 1, math.huge) end) receive() exit(caller, "kill")'
  threads() { [ "$(node-ps -n "one@$HOST" --json | jq -r .kind | grep -cx thread)" = "$1" ]; }
  wait_until threads 1
}

@test "server: a value that cannot be sent is an error of the caller, and leaves nothing behind" {
  lua "$COUNTER"'
    local pid = server.start(counter)
    puts(select(2, pcall(server.call, pid, {x = io.open("/dev/null")})))
    puts(server.call(pid, "next"), receive(20))'
  assert_line --index 0 --partial '.x: a userdata cannot be sent'
  assert_line --index 1 $'1\tnil'
}

@test "server: stop, in every way, with terminate before the end" {
  lua "$COUNTER"'
    local pid = server.start(counter)
    server.stop(pid) puts(receive())
    pid = server.start(counter) server.stop(pid, {"my", "reason"}) puts(receive())
    pid = server.start(counter) puts(server.call(pid, "quit")) puts(receive())
    pid = server.start(counter) server.cast(pid, "stop") puts(receive())
    puts(select(2, pcall(server.stop, pid)))
    pid = server.start({handle_info = function() sleep(100) end}) send(pid, 1)
    puts(select(2, pcall(server.stop, pid, "normal", 10)))'
  assert_line --index 0 $'terminate\tnormal'
  assert_line --index 1 $'terminate\treason'
  assert_line --index 2 bye
  assert_line --index 3 $'terminate\tdone'
  assert_line --index 4 $'terminate\tasked'
  assert_line --index 5 --partial 'ended: noproc'
  assert_line --index 6 --partial 'still there after 10 ms'
}

@test "server: other messages go to handle_info; without it they are dropped" {
  lua "$COUNTER"'
    local pid = server.start(counter) send(pid, "x", nil, 3) puts(receive()) send(pid) puts(receive())
    pid = server.start({handle_call = function() return "reply", "fine" end}) send(pid, "x") puts(server.call(pid))'
  assert_output $'info\tx\tnil\t3\ninfo\tnil\nfine'
}

@test "server: names, and a name that is taken" {
  two_nodes
  lua "$COUNTER"'
    local two = ...
    local pid = server.start(counter, {name = "c"})
    local again, why = server.start(counter, {name = "c"})
    puts(again, why[1], why[2] == pid, whereis("c") == pid)
    local far = server.start(counter, {global = "g", node = two})
    puts(server.call("g", "next"), server.call(far, "next"), server.whereis("g") == far)
    again, why = server.start_link(counter, {global = "g"}) puts(again, why[1], why[2] == far)
    far = server.start({handle_call = function(_, r) return "reply", {node.self(), r} end}, {name = "there", node = two})
    puts(inspect(server.call({"there", two}, "x"))) puts(receive(20))' "two@$HOST"
  assert_output "nil	already_started	true	true
1	2	true
nil	already_started	true
{\"two@$HOST\", \"x\"}
nil"
}

@test "server: init refuses, fails, takes too long; nothing is left of it" {
  lua 'local server = require("server")
    puts(server.start({init = function() return nil, "no way" end}))
    local pid, why = server.start({init = function() error("bad", 0) end}) puts(pid, why[1], why[2])
    puts(server.start({init = function() sleep(10000) end}, {name = "n", timeout = 20})) puts(whereis("n"))
    trap_exit(true)
    puts(server.start_link({init = function() return nil, "no way" end})) puts(select("#", receive(5000)))
    puts(server.start_link({init = function() sleep(10000) end}, {timeout = 20}))
    puts(pcall(server.start, 5)) puts(pcall(server.start, {}, {name = "n", timeout = -1}))
    puts(whereis("n"), receive(30))'
  assert_line $'nil\tno way'
  assert_line $'nil\terror\tbad'
  assert_line $'nil\ttimeout'
  assert_line 3
  assert_line --partial "server: a table of callbacks or a module's name expected, not 5"
  assert_line --partial 'server: milliseconds expected, 0 or more, not -1'
  assert_line --index -1 $'nil\tnil'
}

@test "server: start_link: a failing init ends a caller that does not trap exits" {
  lua 'local pid, ref = spawn_monitor(function() require("server").start_link({init = function() return nil, "no" end}) end)
    puts(select(4, receive(5000)))'
  assert_output no
}

@test "start_link: a failing init sends an exit signal to a caller that traps exits" {
  lua 'trap_exit(true)
    local server, supervisor = require("server"), require("supervisor")
    local function exits() local what, pid, why = receive(5000) puts(what, math.type(pid), inspect(why)) end
    puts(server.start_link({init = function() return nil, "stopped" end})) exits()
    local pid, why = supervisor.start_link({children = {{id = "b", start = function() return nil, "nope" end}}})
    puts(pid, inspect(why)) exits()'
  assert_output 'nil	stopped
EXIT	nil	"stopped"
nil	{"shutdown", {"failed_to_start_child", "b", "nope"}}
EXIT	nil	{"shutdown", {"failed_to_start_child", "b", "nope"}}'
}

@test "server: start_link links it to the caller" {
  lua "$COUNTER"'
    local pid, ref = spawn_monitor(function() server.start_link(counter, {name = "c"}) send("test", "up") receive() end)
    puts(receive()) local s = monitor("c") exit(pid, "boom") puts(select(4, receive_match({"DOWN", s})))
    receive_match({"DOWN", ref})
    local traps = {init = function() trap_exit(true) return {} end, terminate = counter.terminate}
    pid, ref = spawn_monitor(function() server.start_link(traps, {name = "c"}) send("test", "up") receive() end)
    puts(receive()) s = monitor("c") exit(pid, "boom") puts(receive_match({"terminate"}))
    puts(select(4, receive_match({"DOWN", s})))'
  assert_output $'up\nboom\nup\nterminate\tboom\nboom'
}

@test "server: a call to a node that is lost ends with noconnection" {
  two_nodes
  lua 'local server, two, me = require("server"), ..., self()
    local pid = server.start({handle_call = function() send(me, "asked") return "noreply" end}, {node = two})
    local caller, ref = spawn_monitor(function() require("server").call(pid, 1, math.huge) end)
    puts(receive(5000)) node.disconnect(two)
    puts(select(4, receive(5000))[2])' "two@$HOST"
  assert_line --index 0 asked
  assert_line --partial 'the call failed: noconnection'
}

# --- supervisor --------------------------------------------------------------------------------------------

# child: a worker whose start is told to "test"; it ends for what it is sent, and tells that, too.  events: the next
# of what was told.  pid_of: where a child is now.
SUPERVISOR='local supervisor = require("supervisor")
  register("test", self())
  local function child(id, restart, shutdown)
    return {id = id, restart = restart, shutdown = shutdown, start = function()
      send("test", "start " .. id)
      return spawn_link(function() local reason = receive() send("test", "end " .. id) exit(reason) end) end}
  end
  local function events(n) local t = {} for i = 1, n do t[i] = receive(5000) end return table.concat(t, ", ") end
  local function pid_of(sup, id)
    for _, c in ipairs(supervisor.which_children(sup)) do if c.id == id then return c.pid end end
  end
  local function state(sup)
    local t = {}
    for i, c in ipairs(supervisor.which_children(sup)) do t[i] = c.id .. (c.pid and "+" or "-") end
    return table.concat(t, " ")
  end '
SUPERVISOR=${SUPERVISOR//$'\n'/ }

@test "supervisor: children start in order, and stop in the reverse order" {
  lua 'register("test", self())
    local supervisor = require("supervisor")
    local function polite(id) return {id = id, start = function()
      local sup = self()
      local pid = spawn_link(function() trap_exit(true) send(sup, "up " .. id)
        local kind, _, reason = receive() send("test", "end " .. id .. " " .. reason) exit(reason) end)
      receive_match({"up " .. id}) send("test", "start " .. id) return pid end} end
    local sup = assert(supervisor.start({children = {polite("a"), polite("b"), polite("c")}}))
    for _ = 1, 3 do puts(receive()) end
    supervisor.stop(sup) for _ = 1, 3 do puts(receive(5000)) end'
  assert_output $'start a\nstart b\nstart c\nend c shutdown\nend b shutdown\nend a shutdown'
}

@test "supervisor: one_for_one starts the one again, and only it" {
  lua "$SUPERVISOR"'
    local sup = assert(supervisor.start({children = {child("a"), child("b"), child("c")}}, {name = "sup"}))
    puts(events(3)) local a, b = pid_of(sup, "a"), pid_of(sup, "b")
    send(b, "boom") puts(events(2))
    puts(pid_of("sup", "a") == a, pid_of(sup, "b") ~= b, state(sup)) puts(receive(20))'
  assert_output $'start a, start b, start c\nend b, start b\ntrue\ttrue\ta+ b+ c+\nnil'
}

@test "supervisor: rest_for_one starts those again that came after it" {
  lua "$SUPERVISOR"'
    local sup = assert(supervisor.start({strategy = "rest_for_one", children = {child("a"), child("b"), child("c")}}))
    puts(events(3)) local a, c = pid_of(sup, "a"), pid_of(sup, "c")
    send(pid_of(sup, "b"), "boom") puts(events(3))
    puts(pid_of(sup, "a") == a, pid_of(sup, "c") ~= c, alive(c), state(sup)) puts(receive(20))'
  assert_output $'start a, start b, start c\nend b, start b, start c\ntrue\ttrue\tfalse\ta+ b+ c+\nnil'
}

@test "supervisor: one_for_all starts all again" {
  lua "$SUPERVISOR"'
    local sup = assert(supervisor.start({strategy = "one_for_all", children = {child("a"), child("b"), child("c", "temporary")}}))
    puts(events(3)) local a = pid_of(sup, "a")
    send(pid_of(sup, "b"), "boom") puts(events(3)) puts(pid_of(sup, "a") ~= a, alive(a), state(sup)) puts(receive(20))'
  assert_output $'start a, start b, start c\nend b, start a, start b\ntrue\tfalse\ta+ b+\nnil'
}

@test "supervisor: permanent, transient and temporary, for every reason" {
  lua "$SUPERVISOR"'
    for _, reason in ipairs{"normal", "shutdown", {"shutdown", 1}, "boom"} do
      local sup = assert(supervisor.start({children = {child("p"), child("t", "transient"), child("x", "temporary")}}))
      receive() receive() receive()
      for _, id in ipairs{"p", "t", "x"} do send(pid_of(sup, id), reason) puts(inspect(reason), receive(), receive(20)) end
      puts(state(sup)) supervisor.stop(sup)
    end'
  assert_output $'"normal"\tend p\tstart p
"normal"\tend t\tnil
"normal"\tend x\tnil
p+ t-
"shutdown"\tend p\tstart p
"shutdown"\tend t\tnil
"shutdown"\tend x\tnil
p+ t-
{"shutdown", 1}\tend p\tstart p
{"shutdown", 1}\tend t\tnil
{"shutdown", 1}\tend x\tnil
p+ t-
"boom"\tend p\tstart p
"boom"\tend t\tstart t
"boom"\tend x\tnil
p+ t+'
}

@test "supervisor: too many restarts end it and all its children, for shutdown" {
  lua "$SUPERVISOR"'
    local sup = assert(supervisor.start({max_restarts = 2, max_seconds = 60, children = {child("a"), child("b")}}))
    local ref = monitor(sup) events(2) local a = pid_of(sup, "a")
    for _ = 1, 2 do send(pid_of(sup, "b"), "boom") puts(events(2)) end
    send(pid_of(sup, "b"), "boom") puts(events(1))
    puts(select(4, receive_match({"DOWN", ref}, 5000)), alive(a), receive(20))
    sup = supervisor.start({max_restarts = 0, children = {child("a")}}) ref = monitor(sup)
    events(1) send(pid_of(sup, "a"), "boom") puts(select(4, receive_match({"DOWN", ref}, 5000)))'
  assert_output $'end b, start b\nend b, start b\nend b\nshutdown\tfalse\tnil\nshutdown'
}

@test "supervisor: old restarts do not count" {
  lua "$SUPERVISOR"'
    local sup = assert(supervisor.start({max_restarts = 1, max_seconds = 0.05, children = {child("a")}}))
    events(1)
    for _ = 1, 3 do send(pid_of(sup, "a"), "boom") puts(events(2)) sleep(60) end puts(alive(sup))'
  assert_output $'end a, start a\nend a, start a\nend a, start a\ntrue'
}

@test "supervisor: a child that cannot be started stops those before it; the reason says which" {
  lua "$SUPERVISOR"'
    local bad = {id = "bad", start = function() return nil, "no way" end}
    local a = {id = "a", start = function() local p = spawn_link(function() receive() end) send("test", p) return p end}
    local pid, why = supervisor.start({children = {a, bad, child("c")}})
    puts(pid, inspect(why)) puts(alive(receive()), receive(20))
    bad.start = function() error("boom", 0) end
    puts(inspect(select(2, supervisor.start({children = {bad}}))))
    bad.start = {"no_such_module", "start"}
    puts(select(2, supervisor.start({children = {bad}}))[2][3][2]:match("^[^\n]*"))
    bad.start = function() return 5 end
    puts(inspect(select(2, supervisor.start({children = {bad}}))))'
  assert_line --index 0 $'nil\t{"shutdown", {"failed_to_start_child", "bad", "no way"}}'
  assert_line --index 1 $'false\tnil'
  assert_line --index 2 '{"shutdown", {"failed_to_start_child", "bad", {"error", "boom"}}}'
  assert_line --index 3 --partial "module 'no_such_module' not found"
  assert_line --index 4 '{"shutdown", {"failed_to_start_child", "bad", {"bad_return", 5}}}'
}

@test "supervisor: a restart that fails is tried again, and counts" {
  lua "$SUPERVISOR"'
    local tries = 0
    local flaky = {id = "f", start = function()
      tries = tries + 1 send("test", "try " .. tries)
      if tries == 2 or tries == 3 then return nil, "not yet" end
      return spawn_link(function() exit(receive()) end) end}
    local sup = assert(supervisor.start({max_restarts = 3, children = {flaky}})) puts(events(1))
    send(pid_of(sup, "f"), "boom") puts(events(3)) puts(state(sup), receive(20))
    tries = 0
    sup = assert(supervisor.start({max_restarts = 2, children = {flaky}})) local ref = monitor(sup) puts(events(1))
    send(pid_of(sup, "f"), "boom") puts(events(2)) puts(select(4, receive_match({"DOWN", ref}, 5000)))'
  assert_output $'try 1\ntry 2, try 3, try 4\nf+\tnil\ntry 1\ntry 2, try 3\nshutdown'
}

@test "supervisor: a child that a restart of all has started already is not started again" {
  lua 'local supervisor, me, tries, a = require("supervisor"), self(), 0, nil
    local function waits() exit(receive()) end
    local sup = assert(supervisor.start({strategy = "one_for_all", max_restarts = 9, children = {
      {id = "a", start = function() send(me, "a") a = spawn_link(waits) register("a" .. tries, a) return a end},
      {id = "b", start = function()
        tries = tries + 1
        send(me, "b" .. tries)
        if tries ~= 2 then return spawn_link(waits) end
        local ref = monitor(a) exit(a, "kill") receive_match({"DOWN", ref})
        return nil, "not yet"
      end}}}))
    send("a0", "boom") for _ = 1, 6 do puts(receive(5000)) end puts(#supervisor.which_children(sup), receive(20))'
  assert_output $'a\nb1\na\nb2\na\nb3\n2\tnil'
}

@test "supervisor: shutdown is shutdown, then kill after its time; or kill at once" {
  lua "$SUPERVISOR"'
    local function stubborn(id, shutdown) return {id = id, shutdown = shutdown, start = function()
      return spawn_link(function() trap_exit(true) register(id, self()) send("test", "up")
        while true do local kind = receive() send("test", id .. " " .. kind) end end) end} end
    local sup = assert(supervisor.start({children = {stubborn("slow", 30), stubborn("brute", "kill"), child("plain")}}))
    receive() receive() receive()
    for _, id in ipairs{"slow", "brute", "plain"} do
      local ref = monitor(pid_of(sup, id)) puts(supervisor.terminate_child(sup, id))
      puts(id, select(4, receive_match({"DOWN", ref})))
    end
    puts(receive(0), receive(0), state(sup))'
  assert_output $'true\nslow\tkilled\ntrue\nbrute\tkilled\ntrue\nplain\tshutdown\nslow EXIT\tnil\tslow- brute- plain-'
}

@test "supervisor: a child whose module lacked a module can be started when that is there" {
  mkdir -p "$T/path"
  start_node four --path "$T/path"
  run -0 node-spawn -n "four@$HOST" --timeout 20 -e 'local dir = ...
    local function put(name, text) local f = io.open(dir .. "/" .. name, "w") f:write(text) f:close() end
    put("worker.lua", "require(\"dependency\") return {start = function() return spawn_link(receive) end}")
    local supervisor = require("supervisor")
    local sup, child = supervisor.start({}), {id = "x", start = {"worker", "start"}}
    local pid, why = supervisor.start_child(sup, child) puts(pid, inspect(why))
    put("dependency.lua", "return 1")
    puts(alive(supervisor.start_child(sup, child)))' -- "$T/path"
  assert_line --index 0 --regexp "^nil.*worker\.lua:1: module 'dependency' not found"
  assert_line --index -1 true
}

@test "supervisor: children are added, stopped, started and forgotten by hand" {
  lua "$SUPERVISOR"'
    local sup = assert(supervisor.start({}))
    local pid = supervisor.start_child(sup, child("a")) puts(pid == pid_of(sup, "a"), state(sup))
    local none, why = supervisor.start_child(sup, child("a")) puts(none, why[1], why[2] == pid)
    puts(supervisor.restart_child(sup, "a")) puts(supervisor.delete_child(sup, "a"))
    puts(supervisor.terminate_child(sup, "a"), state(sup), supervisor.terminate_child(sup, "a"))
    puts(supervisor.start_child(sup, child("a")))
    puts(supervisor.restart_child(sup, "a") == pid_of(sup, "a"), state(sup))
    supervisor.terminate_child(sup, "a") puts(supervisor.delete_child(sup, "a"), state(sup))
    for _, f in ipairs{"terminate_child", "restart_child", "delete_child"} do puts(supervisor[f](sup, "a")) end
    supervisor.start_child(sup, child("x", "temporary")) supervisor.terminate_child(sup, "x") puts(state(sup) == "")'
  assert_output $'true\ta+
nil\talready_started\ttrue
nil\trunning
nil\trunning
true\ta-\ttrue
nil\talready_present
true\ta+
true\t
nil\tnot_found
nil\tnot_found
nil\tnot_found
true'
}

@test "supervisor: a bad specification is the caller's error" {
  lua 'local supervisor = require("supervisor")
    local function try(...) puts(select(2, pcall(supervisor.start, ...))) end
    local sup = supervisor.start({})
    try() try({strategy = "all"}) try({children = {{}}}) try({children = {{id = 1}}})
    try({children = {{id = 1, start = {5}}}}) try({children = {{id = 1, start = print, restart = "often"}}})
    try({children = {{id = 1, start = print, shutdown = -1}}})
    try({children = {{id = 1, start = print}, {id = 1, start = print}}})
    puts(select(2, pcall(supervisor.start_child, sup, {id = 2}))) puts(alive(sup))
    try({max_restarts = -1}) try({max_restarts = "3"}) try({max_seconds = 0})'
  assert_line --index 0 'supervisor: a specification is a table: nil'
  assert_line --index 1 'supervisor: no such strategy: "all"'
  assert_line --index 2 'supervisor: a child has no id: {}'
  assert_line --index 3 "supervisor: a child's start is a function, or {module, function, …}: {id = 1}"
  assert_line --index 4 --partial "supervisor: a child's start is a function"
  assert_line --index 5 'supervisor: no such restart: "often"'
  assert_line --index 6 'supervisor: no such shutdown: -1'
  assert_line --index 7 'supervisor: two children have the id: 1'
  assert_line --index 8 --partial "supervisor: a child's start is a function"
  assert_line --index 9 true
  assert_line --index 10 'supervisor: no such max_restarts: -1'
  assert_line --index 11 'supervisor: no such max_restarts: "3"'
  assert_line --index 12 'supervisor: no such max_seconds: 0'
}

@test "supervisor: a tree; the end of the top ends it all, and a server in it says goodbye" {
  lua "$SUPERVISOR"'
    local counter = {init = function() trap_exit(true) return {} end,
      terminate = function(_, reason) send("test", "terminate " .. reason) end}
    local inner = {children = {{id = "counter", start = {"server", "start_link", counter, {name = "counter"}}}}}
    local sup = assert(supervisor.start({children = {
      {id = "inner", start = {"supervisor", "start_link", inner, {name = "inner"}}, shutdown = math.huge}, child("a")}}))
    puts(events(1), state(sup), state("inner"))
    local first = whereis("counter") exit(first, "kill")
    repeat sleep(1) until whereis("counter") and whereis("counter") ~= first
    exit(whereis("inner"), "kill")
    repeat sleep(1) until whereis("inner") and whereis("counter")
    local ref = monitor("counter") supervisor.stop(sup)
    puts(events(1), select(4, receive_match({"DOWN", ref})), whereis("counter"), whereis("inner"))'
  assert_line --index 0 $'start a\tinner+ a+\tcounter+'
  assert_line --partial $'shutdown\tnil\tnil'
}

@test "supervisor: it ends with the process that started it, and its children with it" {
  two_nodes
  lua "$SUPERVISOR"'
    local me = self()
    local pid, ref = spawn_monitor(function()
      local sup = require("supervisor").start_link({children = {
        {id = "far", start = function() return node.spawn_link("'"two@$HOST"'", function() send(me, self()) receive() end) end}}})
      receive() end)
    local far = receive(5000) local watch = monitor(far)
    exit(pid, "boom") puts(select(4, receive_match({"DOWN", watch}, 5000)))'
  assert_output shutdown
}

# --- task --------------------------------------------------------------------------------------------------

@test "task: async and await; all results come back" {
  lua 'local task = require("task")
    local t = task.async(function(a, b) return a + b, nil, "x" end, 20, 22) puts(task.await(t))
    puts(select("#", task.await(task.async(function() end)))) puts(receive(20))
    puts(select(2, pcall(task.await, t)))'
  assert_line --index 0 $'42\tnil\tx'
  assert_line --index 1 0
  assert_line --index 2 nil
  assert_line --index 3 --partial 'task: it was waited for already'
}

@test "task: a failure ends the caller even before await; or is an EXIT, and an error in await" {
  lua 'local task = require("task")
    local function fails() error("boom", 0) end
    spawn_monitor(function() task.async(fails) receive() end) puts(select(4, receive(5000))[2])
    spawn_monitor(function() pcall(task.await, task.async(exit, {"my", 1})) receive() end) puts(inspect(select(4, receive(5000))))
    spawn_monitor(function() task.await(task.async(print)) receive(20) exit("still here") end) puts(select(4, receive(5000)))
    trap_exit(true)
    local t = task.async(exit, "gone")
    puts(select(2, pcall(task.await, t))) local kind, pid, reason = receive(5000) puts(kind, pid == t.pid, reason)
    puts(task.await(task.async(function() return "fine" end)), receive(20))
    t = task.async(sleep, 60000) puts(pcall(task.await, t, 0)) puts(receive(20))'
  assert_line boom
  assert_line '{"my", 1}'
  assert_line 'still here'
  assert_line --regexp '^task <0\.[0-9.]+>: gone$'
  assert_line $'EXIT\ttrue\tgone'
  assert_line $'fine\tnil'
  assert_line --index -1 nil
}

@test "task: the failure of one without a link is an error in await only" {
  lua 'local task = require("task")
    local function try(f) puts(select(2, pcall(task.await, task.async_nolink(f)))) end
    try(function() error("boom", 0) end) try(function() exit({"my", 1}) end) try(function() exit("normal") end)
    try(function() exit(self(), "kill") receive() end)
    try(function() return io.open("/dev/null") end) puts(receive(20))'
  assert_line --regexp '^task <0\.[0-9.]+>: boom$'
  assert_line --regexp '^task .*: \{"my", 1\}$'
  assert_line --regexp '^task .*: normal$'
  assert_line --regexp '^task .*: killed$'
  assert_line --regexp '^task .*a userdata cannot be sent$'
  assert_line nil
}

@test "task: one that takes too long is ended; so is one that is cancelled, or whose owner ends" {
  needs_preemption
  lua 'local task = require("task")
    local t = task.async(function() sleep(60000) end) local ref = monitor(t.pid)
    puts(select(2, pcall(task.await, t, 20))) puts(select(4, receive(5000)))
    t = task.async(function() sleep(60000) end) ref = monitor(t.pid) task.cancel(t) puts(select(4, receive(5000)))
    local me = self()
    local owner = spawn(function()
      send(me, "task", require("task").async(function() send(me, "runs") while true do end end)) receive() end)
    _, t = receive_match({"task"}) receive_match({"runs"}) ref = monitor(t.pid) puts(select(2, pcall(task.await, t)))
    exit(owner, "any") puts(select(4, receive(5000))) puts(receive(20))'
  assert_line --index 0 --regexp '^task .*: not done within 20 ms$'
  assert_line --index 1 killed
  assert_line --index 2 killed
  assert_line --index 3 --partial 'task: another process started it'
  assert_line --index 4 any
  assert_line --index 5 nil
}

@test "task: map keeps the order, and never runs more than its width" {
  lua 'local task, me = require("task"), self()
    puts(inspect(task.map({5, 4, 3, 2, 1}, function(v, i) sleep(v) return v * i end)))
    puts(inspect(task.map({}, print)), inspect(task.map({1, 2}, function(v) if v == 2 then return v end end)))
    local gauge = spawn(function()
      local now, most = 0, 0
      while true do
        local what, to = receive()
        if what == "most" then send(to, most) else now = now + what most = math.max(most, now) end
      end end)
    task.map(table.move({}, 1, 20, 1, {}), print)
    local list = {} for i = 1, 20 do list[i] = i end
    task.map(list, function() send(gauge, 1) sleep(2) send(gauge, -1) end, {width = 3})
    send(gauge, "most", me) puts(receive())'
  assert_line --index 0 '{5, 8, 9, 8, 5, n = 5}'
  assert_line --index 1 $'{n = 0}\t{[2] = 2, n = 2}'
  assert_line --index 2 3
}

@test "task: map fails with the first that fails, and ends the others" {
  lua 'local task, me = require("task"), self()
    puts(select(2, pcall(task.map, {1, 2, 3, 4}, function(v)
      if v == 3 then receive(30) error("three", 0) end send(me, self()) sleep(60000) end, {width = 3})))
    for _ = 1, 2 do local ref = monitor((receive(5000))) puts((select(4, receive_match({"DOWN", ref}, 5000)))) end
    puts(select(2, pcall(task.map, {1}, function() sleep(60000) end, {timeout = 20}))) puts(receive(20))
    puts(select(2, pcall(task.map, {1}, print, {width = 0})))
    puts(select(2, pcall(task.map, {1}, print, {timeout = "1"})))
    puts(select(2, pcall(task.map, {1}, print, {nodes = {}})))'
  assert_line 'task: [3]: three'
  assert_line --regexp '^(noproc|killed)$'
  assert_line 'task: [1]: timeout'
  assert_line nil
  assert_line --partial 'task: a width of 1 or more expected'
  assert_line --partial 'task: a timeout of 0 or more milliseconds expected'
  assert_line --partial 'task: no nodes to work on'
}

@test "task: map takes the time of each one from its own start" {
  lua 'local task = require("task")
    local list = {} for i = 1, 12 do list[i] = i end
    puts(#task.map(list, function(i) sleep(30) return i end, {width = 2, timeout = 150}))
    puts(select(2, pcall(task.map, list, function(i) sleep(i == 7 and 60000 or 1) end, {width = 3, timeout = 100})))'
  assert_output $'12\ntask: [7]: timeout'
}

@test "task: a node that is lost in the middle of a map is the failure of what ran there" {
  two_nodes
  lua 'local task, two, me = require("task"), ..., self()
    local cutter = spawn(function() receive() receive() node.disconnect(two) end)
    puts(select(2, pcall(task.map, {1, 2, 3, 4}, function()
      if node.self() == two then send(cutter, "now") end sleep(60000) end, {nodes = {node.self(), two}})))
    puts(receive(20))' "two@$HOST"
  assert_line --regexp '^task: \[[24]\]: noconnection$'
  assert_line nil
}

@test "task: on other nodes" {
  two_nodes
  lua 'local task, two = require("task"), ...
    puts(task.await(task.async_on(two, function(x) return node.self(), x end, "x")))
    trap_exit(true) puts(select(2, pcall(task.await, task.async_on(two, function() error("far", 0) end)))) receive()
    local on = {}
    for _, name in ipairs(task.map({1, 2, 3, 4, 5, 6}, function() sleep(20) return node.self() end,
      {nodes = {node.self(), two}, width = 4})) do on[name] = (on[name] or 0) + 1 end
    puts(on[two] >= 2, on[node.self()] >= 2)
    local results, failures = task.on_nodes({node.self(), two, "three@nowhere.invalid"}, function() return node.self() end)
    puts(results[two], results[node.self()], failures["three@nowhere.invalid"])' "two@$HOST"
  assert_line "two@$HOST	x"
  assert_line --regexp '^task <1\.[0-9.]+>: far$'
  assert_line $'true\ttrue'
  assert_line --regexp "^two@$HOST	one@$HOST	three@nowhere.invalid: .*\(resolve\)"
}

@test "task: it ends with the node of its owner, and await with the node of the task" {
  two_nodes
  lua 'local task, two = require("task"), ...
    trap_exit(true)
    local t = task.async_on(two, function() register("far", self()) sleep(60000) end)
    local me = self()
    node.spawn(two, function() while not whereis("far") do sleep(1) end send(me, "up") end) puts(receive(5000))
    node.disconnect(two) puts(select(2, pcall(task.await, t)))' "two@$HOST"
  assert_line --index 0 up
  assert_line --partial noconnection
  gone() { ! node-whereis -n "two@$HOST" --local far; }
  wait_until gone
}

# --- group -------------------------------------------------------------------------------------------------

# becomes: waits until the group has that many members.
GROUP='local group, me = require("group"), self()
  local function becomes(name, n)
    local last
    for _ = 1, 500 do last = #group.members(name) if last == n then return n end sleep(10) end
    return "still " .. last
  end '
GROUP=${GROUP//$'\n'/ }

@test "group: join, leave, members; a process may be in it more than once" {
  lua "$GROUP"'
    puts(#group.members("g"), #group.which_groups())
    group.join("g") group.join("g") group.join("h", {me, me})
    puts(#group.members("g"), group.members("g")[1] == me, table.concat(group.which_groups(), ","))
    puts(group.leave("g"), #group.members("g"), group.leave("g"), group.leave("g"), #group.members("g"))
    puts(table.concat(group.which_groups(), ",")) puts(#group.local_members("h"), group.send("h", "x"), receive())'
  assert_output $'0\t0\n2\ttrue\tg,h\ntrue\t1\ttrue\tfalse\t0\nh\n2\t2\tx'
}

@test "group: a process that ends has left, dead ones never are members" {
  lua "$GROUP"'
    local pids = {} for i = 1, 20 do pids[i] = spawn(function() receive() end) end
    group.join("g", pids) group.join("h", pids) puts(#group.members("g"))
    for i = 1, 10 do exit(pids[i], "kill") end puts(becomes("g", 10), becomes("h", 10))
    for i = 11, 20 do send(pids[i], "end") end puts(becomes("g", 0), #group.which_groups())
    group.join("d", pids) puts(becomes("d", 0)) puts(receive(0))'
  assert_output $'20\n10\t10\n0\t0\n0\nnil'
}

@test "group: two that need it first at the same time agree on one process" {
  lua "$GROUP"'
    for _ = 1, 50 do spawn(function() require("group").join("g") send(me, "joined") receive() end) end
    for _ = 1, 50 do receive() end puts(#group.members("g"))'
  assert_output 50
}

@test "group: what is refused" {
  two_nodes
  lua "$GROUP"'
    local far = node.spawn(..., function() receive() end)
    for _, bad in ipairs{far, 5, "me", {me, 5}, {}} do puts(select(2, pcall(group.join, "g", bad))) end
    puts(select(2, pcall(group.join))) puts(select(2, pcall(group.members, {}))) puts(#group.members("g"))' "two@$HOST"
  assert_line --index 0 --partial 'group: a pid of this node expected, not <1.'
  assert_line --index 1 --partial 'group: a pid of this node expected, not 5'
  assert_line --index 2 --partial 'group: a pid of this node expected, not "me"'
  assert_line --index 3 --partial 'group: a pid of this node expected, not 5'
  assert_line --index 4 --partial 'group: a pid expected'
  assert_line --index 5 --partial 'group: a name expected, not nil'
  assert_line --index 6 --partial 'group: a name expected, not {}'
  assert_line --index 7 0
}

@test "group: two nodes see each other's members, whoever came first; and their ends" {
  two_nodes
  lua "$GROUP"'
    local two = ...
    group.join("g")
    local far = node.spawn(two, function() local group = require("group")
      group.join("g") group.join("far") send(me, "joined") receive() group.leave("g") receive() end)
    puts(receive(5000), becomes("g", 2), #group.local_members("g"), becomes("far", 1))
    node.spawn(two, function() local group = require("group")
      for _ = 1, 500 do if #group.members("g") == 2 then break end sleep(10) end
      send(me, #group.members("g"), #group.local_members("g"), group.send("g", "to all")) end)
    puts(receive_match({"to all"}, 5000)) puts(receive(5000))
    send(far, "leave") puts(becomes("g", 1)) send(far, "end") puts(becomes("far", 0), table.concat(group.which_groups(), ","))' "two@$HOST"
  assert_output $'joined\t2\t1\t1\nto all\n2\t1\t2\n1\n0\tg'
}

@test "group: the members of a lost node leave, and come back with it" {
  two_nodes
  run -0 node-spawn -n "two@$HOST" -d -e 'require("group").join("g") receive()'
  lua "$GROUP"'
    local two = ...
    group.join("g") puts(becomes("g", 2)) node.disconnect(two) puts(becomes("g", 1))
    node.connect(two) puts(becomes("g", 2))' "two@$HOST"
  assert_output $'2\n1\n2'
  run -0 node-spawn -n "two@$HOST" -e 'local group = require("group")
    for _ = 1, 500 do if #group.members("g") == 1 then break end sleep(10) end puts(#group.members("g"))'
  assert_output 1
}

@test "group: the first list that a node gives is complete" {
  two_nodes
  start_node three --join "one@$HOST"
  lua 'local group, me = require("group"), self()
    node.spawn(..., function() require("group").join("g") send(me, "joined") receive() end) puts(receive(5000))
    group.join("g") receive()' "two@$HOST" &
  both() { [ "$(node-spawn -n "one@$HOST" -e 'puts(#require("group").members("g"))')" = 2 ]; }
  wait_until both
  run -0 node-spawn -n "three@$HOST" -e 'puts(require("group").send("g", "end"))'
  assert_output 2
  wait
}

@test "group: another process that has the name of the group server delays callers for a bounded time" {
  two_nodes
  lua "$GROUP"'
    node.spawn(..., function() register("group", self()) send(me, "taken") receive_match({"never"}) end) puts(receive(5000))
    group.join("g") puts(#group.members("g"))' "two@$HOST"
  assert_output $'taken\n1'
}

@test "group: its process is started again when it is gone, and learns of the others" {
  two_nodes
  run -0 node-spawn -n "two@$HOST" -d -e 'require("group").join("g") receive()'
  lua "$GROUP"'
    puts(becomes("g", 1))
    local ref = monitor("group") exit(whereis("group"), "kill") receive_match({"DOWN", ref})
    puts(becomes("g", 1))' "two@$HOST"
  assert_output $'1\n1'
}

# --- the examples ------------------------------------------------------------------------------------------

EXAMPLES=$ROOT/share/examples

@test "example: counter" {
  start_node three --path "$EXAMPLES"
  run -0 node-spawn -n "three@$HOST" -m counter.start -- 10
  assert_output --regexp '^counter: <0\.[0-9.]+>$'
  run -0 node-spawn -n "three@$HOST" -m counter.show -- 5
  assert_output 15
  run -1 node-spawn -n "three@$HOST" -m counter.show -- five
  assert_line --partial 'counter: a whole number expected, not "five"'
  run -1 node-spawn -n "three@$HOST" -m counter.start
  assert_line --partial 'counter: {"already_started", <0.'
  run -0 node-spawn -n "three@$HOST" -m counter.show -- 0
  assert_output 15
}

@test "example: supervised" {
  run -0 node-spawn -n "one@$HOST" -f "$EXAMPLES/supervised.lua"
  assert_output $'start 1\nstart 2\nstart 3\nthe supervisor gave up: "shutdown"'
  run -0 node-spawn -n "one@$HOST" -f "$EXAMPLES/supervised.lua" -- 0
  assert_output $'start 1\nthe supervisor gave up: "shutdown"'
}

@test "example: uptime" {
  two_nodes
  run -0 node-spawn -n "one@$HOST" -f "$EXAMPLES/uptime.lua" -- 'echo $((1 + 1))'
  assert_output "one@$HOST: 2
two@$HOST: 2"
  run -1 node-spawn -n "two@$HOST" -f "$EXAMPLES/uptime.lua" -- false
  assert_line "one@$HOST: failed: false: status 1"
}

@test "example: news" {
  two_nodes
  node-spawn -n "one@$HOST" "two@$HOST" -f "$EXAMPLES/news.lua" >"$T/far" 3>&- &
  node-spawn -n "one@$HOST" -f "$EXAMPLES/news.lua" >"$T/near" 3>&- &
  two_listen() { [ "$(node-spawn -n "one@$HOST" -e 'puts(#require("group").members("news"))')" = 2 ]; }
  wait_until two_listen
  run -0 node-spawn -n "one@$HOST" -f "$EXAMPLES/news.lua" -- 'dinner is ready'
  assert_output 2
  wait_until grep -qx "one@$HOST: dinner is ready" "$T/near"
  wait_until grep -qx "one@$HOST: dinner is ready" "$T/far"
}

@test "group: members keep the order in which they joined while many leave" {
  lua 'local group, pids, rest = require("group"), {}, {}
       for i = 1, 2000 do pids[i] = spawn(function() receive() end) end
       group.join("g", pids) group.join("g", pids[1]) group.leave("g", pids[1])
       for i, pid in ipairs(pids) do
         if i % 40 == 1 then rest[#rest + 1] = pid else exit(pid, "kill") end
       end
       repeat local now = group.members("g") until #now == #rest
       local now, same = group.members("g"), true
       for i, pid in ipairs(rest) do same = same and now[i] == pid end
       group.leave("g", rest) puts(#now, same, #group.members("g"), #group.which_groups())'
  assert_output $'50\ttrue\t0\t0'
}

@test "supervisor: a transient child that ended before it was linked is not started again" {
  lua 'local supervisor, me = require("supervisor"), self()
       local s = supervisor.start({children = {{id = "x", restart = "transient", start = function()
         send(me, "started")
         local pid, ref = spawn_monitor(function() end) receive_match({"DOWN", ref})
         return pid
       end}}})
       receive() supervisor.which_children(s) puts(receive(0), supervisor.which_children(s)[1].pid)'
  assert_output $'nil\tnil'
}
