#!/usr/bin/env bats
# The process language: what a green thread can do, and what it is told when it cannot.

load helper

setup() {
  node_setup
  start_node one
}

# Each line of the code is a call that is refused: says how.
refused() { lua 'for line in (...):gmatch("[^\n]+") do puts(select(2, pcall(assert(load(line))))) end' "$1"; }

# --- spawning ----------------------------------------------------------------------------------------------

@test "self, spawn: a pid at once, the function with its arguments in a process of its own" {
  lua 'local me = self()
       local pid = spawn(function(...) send(me, self(), select("#", ...), ...) end, 1, nil, "x", nil)
       local from, n, a, b, c = receive()
       puts(from == pid, pid ~= me, n, a, b, c)'
  assert_output $'true\ttrue\t4\t1\tnil\tx'
}

@test "spawn of a module's function, by name" {
  mkdir "$T/lib"
  echo 'return {hello = function(to, what) send(to, what .. " from the module") end}' >"$T/lib/greeter.lua"
  start_node three --path "$T/lib"
  run -0 node-spawn -n "three@$HOST" -e 'spawn("greeter", "hello", self(), "hi") puts(receive())'
  assert_output 'hi from the module'
  run -0 node-spawn -n "three@$HOST" -e 'local _, ref = spawn_monitor("greeter", "bye")
    local _, _, _, reason = receive() puts(reason[1], reason[2])'
  assert_line --partial $'error\tmodule \'greeter\' has no function \'bye\''
}

@test "spawn: upvalues are copied, and shared ones stay shared" {
  lua 'local me, n = self(), 1
       local function add() n = n + 1 end
       local function get() return n end
       spawn(function() add() add() send(me, get()) end)
       puts(receive(), n)'
  assert_output $'3\t1'
}

@test "spawn: what cannot be spawned" {
  refused 'spawn()
spawn(5)
spawn("module")
spawn(print, {1, {io.open("/dev/null")}})
local f = io.open("/dev/null") spawn(function() return f end)'
  assert_line --index 0 --partial "bad argument #1 to 'spawn' (a function, or a module's and a function's name, expected)"
  assert_line --index 1 --partial "bad argument #1 to 'spawn'"
  assert_line --index 2 --partial "bad argument #1 to 'spawn'"
  assert_line --index 3 --partial 'argument[1][2][1]: a userdata cannot be sent'
  assert_line --index 4 --partial "'f': a userdata cannot be sent"
}

# --- messages ----------------------------------------------------------------------------------------------

@test "send and receive: a message is its values, nils included" {
  lua 'send(self(), 1, nil, "three", nil) puts(select("#", receive())) send(self(), 1, nil, "three") puts(receive())
       send(self()) puts(select("#", receive()))'
  assert_output $'4\n1\tnil\tthree\n0'
}

@test "every value that can travel comes back as it was" {
  lua 'local function back(v) send(self(), v) return receive() end
       for _, v in ipairs{true, false, 0, -1, math.maxinteger, math.mininteger, 1.0, 0.1, math.huge, "", "\0\255ü",
                          self(), monitor(self())} do
         local b = back(v)
         assert(b == v and math.type(b) == math.type(v), inspect(v))
       end
       local nan = back(0/0)
       assert(nan ~= nan)
       assert(tostring(back(-0.0)) == "-0.0")
       puts(inspect(back{1, {2, {}}, a = {b = "c"}, [2.5] = true, [false] = 0}))
       local t = back{[self()] = "me"}
       puts(t[self()])
       puts(back(function(n) return n + 1 end)(41))'
  assert_output $'{1, {2, {}}, [2.5] = true, a = {b = "c"}, [false] = 0}\nme\n42'
}

@test "what comes is a copy: no metatable, no identity" {
  lua 'local t = setmetatable({n = 1}, {__index = {m = 2}})
       send(self(), t, t)
       local a, b = receive()
       a.n = 5
       puts(a == t, a == b, t.n, b.n, b.m, getmetatable(a))'
  assert_output $'false\tfalse\t1\t1\tnil\tnil'
}

@test "what cannot travel is refused, with the path to it, and nothing arrives" {
  refused 'local x = {1, 2, {deep = {io.open("/dev/null")}}} send(self(), "a", x)
send(self(), io.open("/dev/null"))
local f = io.open("/dev/null") send(self(), {go = function() return f end})'
  assert_line --index 0 --partial 'message[2][3].deep[1]: a userdata cannot be sent'
  assert_line --index 1 --partial 'message[1]: a userdata cannot be sent'
  assert_line --index 2 --regexp "message\[1\]\.go: .*'f': a userdata cannot be sent"
  lua 'pcall(send, self(), "a", {io.open("/dev/null")}) puts(receive(0))'
  assert_output nil
}

@test "cycles and tables nested 10,000 deep are refused; 500 deep goes" {
  refused 'local t = {} t.me = t send(self(), t)
local a, b = {}, {} a[1], b.x = b, a send(self(), a)
local t = {} for _ = 1, 10000 do t = {t} end send(self(), t)
local t = {} for _ = 1, 500 do t = {t} end send(self(), t) error("500: " .. #receive(), 0)'
  assert_line --index 0 --regexp 'message\[1\]\.me\.me.*: nested too deep, or in a cycle'
  assert_line --index 1 --regexp 'message\[1\]\[1\]\.x\[1\].*: nested too deep, or in a cycle'
  assert_line --index 2 --partial ': nested too deep, or in a cycle'
  assert_line --index 3 '500: 1'
}

@test "a string of 100 MB goes; one that no message can hold is an error" {
  lua 'send(self(), ("x"):rep(100000000)) puts(#receive())'
  assert_output 100000000
  lua 'local s = ("x"):rep(70000000) puts(select(2, pcall(send, self(), s, s))) puts(receive(0))'
  assert_line --index 0 --regexp 'larger than a message may be \(128 MiB\)|not enough memory'
  assert_line --index 1 nil
}

@test "send: a name, {name, node}, and who is not there" {
  two_nodes
  run -0 node-spawn -n "two@$HOST" -d -e 'register("echo", self()) local pid, v = receive() send(pid, v)'
  wait_until node-whereis -n "two@$HOST" --local echo
  lua 'register("me", self())
       send("me", 1) puts(receive())
       send({"me", node.self()}, 2) puts(receive())
       send({"echo", ...}, self(), 3) puts(receive(5000))
       send({"nobody", node.self()}, 4)
       send({"nobody", ...}, 5)
       puts(receive(0))' "two@$HOST"
  assert_output $'1\n2\n3\nnil'
}

@test "a long message to a name of another node, and long arguments of a process there" {
  two_nodes
  run -0 node-spawn -n "two@$HOST" -d -e 'register("echo", self())
    local pid, t, s = receive() send(pid, #t, t[9][1], #s)'
  wait_until node-whereis -n "two@$HOST" --local echo
  lua 'local two, t = ..., {}
       for i = 1, 100000 do t[i] = {i} end
       local s = ("x"):rep(500000)
       local function sum(a, b, ...) exit(#a + #b + select("#", ...)) end
       send({"echo", two}, self(), t, s) puts(receive(20000))
       local pid, ref = node.spawn_monitor(two, sum, t, s, 1, 2)
       local what, r, p, reason = receive(20000)
       puts(what, r == ref, p == pid, reason)' "two@$HOST"
  assert_output $'100000\t9\t500000\nDOWN\ttrue\ttrue\t600002'
}

@test "send: dead, malformed and unknown destinations" {
  refused 'send(nil, 1)
send(5, 1)
send({}, 1)
send({"name", 5}, 1)
send("nobody", 1)
local pid, ref = spawn_monitor(function() end) receive() send(pid, 1) error("sent", 0)'
  for i in 0 1 2 3; do
    assert_line --index $i --partial "bad argument #1 to 'send' (a pid, a name, {name, node}, or an alias expected)"
  done
  assert_line --index 4 --partial "no process has the name 'nobody'"
  assert_line --index 5 sent
}

@test "a stale pid is nobody's: its messages reach no stranger" {
  two_nodes
  run -0 node-spawn -n "two@$HOST" -d --full -e 'receive()'
  stale=$output
  node-stop -n "two@$HOST"
  wait_until test "$(node-list -n "one@$HOST" | wc -l)" = 0
  two_nodes
  run -1 node-send -n "one@$HOST" "$stale" hello
}

@test "receive: with a timeout, nothing but nil; 0 looks only" {
  lua 'puts(select("#", receive(0)), receive(0))
       local t = monotonic() puts(receive(20)) puts((monotonic() - t) // 1000000 >= 20)
       send(self(), "x") puts(receive(0))'
  assert_output $'1\tnil\nnil\ntrue\nx'
}

@test "receive, receive_match, sleep: absurd timeouts" {
  refused 'receive(-1)
receive(0/0)
receive("x")
receive({})
receive_match({}, -1)
sleep(-5)
send_after(-1, self())
send_after(nil, self())
sleep()
receive(-math.huge)
sleep(0/0)'
  assert_line --index 0 --partial "bad argument #1 to 'receive' (milliseconds expected, 0 or more)"
  assert_line --index 1 --partial "bad argument #1 to 'receive' (milliseconds expected, 0 or more)"
  assert_line --index 2 --partial "bad argument #1 to 'receive' (number expected, got string)"
  assert_line --index 3 --partial "bad argument #1 to 'receive' (number expected, got table)"
  assert_line --index 4 --partial "bad argument #2 to 'receive_match' (milliseconds expected, 0 or more)"
  assert_line --index 5 --partial "bad argument #1 to 'sleep' (milliseconds expected, 0 or more)"
  assert_line --index 6 --partial "bad argument #1 to 'send_after' (milliseconds expected, 0 or more)"
  assert_line --index 7 --partial "bad argument #1 to 'send_after' (number expected, got nil)"
  assert_line --index 8 --partial "bad argument #1 to 'sleep' (number expected, got no value)"
  assert_line --index 9 --partial "bad argument #1 to 'receive' (milliseconds expected, 0 or more)"
  assert_line --index 10 --partial "bad argument #1 to 'sleep' (milliseconds expected, 0 or more)"
  lua 'for _, t in ipairs{1e308, math.huge, math.maxinteger, 1e15, 0.5} do send_after(1, self(), "x") receive(t) end
       puts(receive(0.25))'
  refute_output --partial 'ended'
}

@test "receive_match by leading values: the others are kept, in order" {
  lua 'for i = 1, 4 do send(self(), "other", i) end
       send(self(), "mine", 7, "rest") send(self(), "mine", 8)
       puts(receive_match({"mine", 8})) puts(receive_match({"mine"}))
       for i = 1, 4 do puts(receive()) end
       puts(receive_match({}, 0)) send(self(), "any") puts(receive_match({}))'
  assert_output $'mine\t8\nmine\t7\trest\nother\t1\nother\t2\nother\t3\nother\t4\nnil\nany'
}

@test "receive_match: values of every kind, 1 is not 1.0, and a shorter message does not match" {
  lua 'local ref = monitor(self())
       for _, v in ipairs{"s", 1, 1.5, true, false, ref, self()} do
         send(self(), {v}) send(self(), v, "hit") assert(select(2, receive_match({v})) == "hit", inspect(v)) receive()
       end
       send(self(), "a") puts(receive_match({"a", "b"}, 0)) puts(receive())
       puts(pcall(receive_match, 5))'
  assert_line --index 0 nil
  assert_line --index 1 a
  assert_line --index 2 --partial 'a list of leading values, a reference, or a predicate, expected'
}

@test "receive_match by predicate: it sees all values, may wait itself, and its error leaves the message" {
  lua 'for i = 1, 5 do send(self(), i, i * i) end
       puts(receive_match(function(_, square) sleep(1) return square == 9 end))
       puts(pcall(receive_match, function(i) error("no: " .. i, 0) end))
       for _ = 1, 4 do puts(receive()) end'
  assert_output $'3\t9\nfalse\tno: 1\n1\t1\n2\t4\n4\t16\n5\t25'
}

@test "the predicate of a receive_match takes no messages, so that what it has judged is what is taken" {
  lua 'local me = self()
       local function refused(f)
         puts((select(2, pcall(receive_match, function(word) f() return word == "b" end)):gsub("^.-: ", ""))) end
       send(me, "a") send(me, "b")
       local _, ref = spawn_monitor(function() end)
       refused(receive) refused(function() receive_match({"a"}, 0) end) refused(function() demonitor(ref, true) end)
       puts(receive_match(function(word) sleep(0) return word == "b" end)) puts(receive()) puts((receive()))'
  local why='the predicate of a receive_match cannot take messages'
  assert_output "$why"$'\n'"$why"$'\n'"$why"$'\nb\na\nDOWN'
}

@test "receive_match waits for what comes later, and its timeout holds against a stream of others" {
  lua 'local me = self()
       spawn(function() for i = 1, 50 do send(me, "other", i) sleep(1) end send(me, "mine") end)
       puts(receive_match({"mine"}, 5000))
       spawn(function() while true do send(me, "noise") sleep(1) end end)
       local t = monotonic() puts(receive_match({"never"}, 30)) puts((monotonic() - t) // 1000000 < 1000)'
  assert_output $'mine\nnil\ntrue'
}

@test "receive_match does not look again at what it has skipped" {
  lua 'local me, looked = self(), 0
       for i = 1, 1000 do send(me, "other") end
       spawn(function() for i = 1, 100 do sleep(0) send(me, "later") end send(me, "mine") end)
       receive_match(function(kind) looked = looked + 1 return kind == "mine" end)
       puts(looked)'
  assert_output 1101
}

# --- timers ------------------------------------------------------------------------------------------------

@test "send_after: in the order of their time, to a pid or a name" {
  lua 'register("me", self())
       send_after(40, self(), "third") send_after(1, self(), "first", nil, 1) send_after(20, "me", "second")
       puts(receive()) puts(receive()) puts(receive())'
  assert_output $'first\tnil\t1\nsecond\nthird'
}

@test "cancel_timer: the time left, or false" {
  lua 'local ref = send_after(60000, self(), "never")
       local left = cancel_timer(ref)
       puts(left > 59000 and left <= 60000, cancel_timer(ref), receive(0))
       ref = send_after(0, self(), "now") receive() puts(cancel_timer(ref))
       puts(cancel_timer(monitor(self())))
       puts(select(2, pcall(cancel_timer, self())))'
  assert_line --index 0 $'true\tfalse\tnil'
  assert_line --index 1 false
  assert_line --index 2 false
  assert_line --index 3 --partial 'reference expected'
}

@test "monotonic never goes back; sleep sleeps" {
  lua 'local a = monotonic() for _ = 1, 1000 do local b = monotonic() assert(b >= a) a = b end
       sleep(15) puts(math.type(a), monotonic() - a >= 15000000)'
  assert_output $'integer\ttrue'
}

@test "a timer's process may be gone, and the name taken by another" {
  lua 'local me = self()
       local a = spawn(function() register("n", self()) receive() end)
       send_after(30, "n", "hello") send_after(1, a, "end") send_after(30, a, "lost")
       sleep(10) register("n", me)
       puts(receive(1000)) puts(receive(20))'
  assert_output $'hello\nnil'
}

# --- names -------------------------------------------------------------------------------------------------

@test "register, whereis, registered, unregister" {
  lua 'register("a", self()) puts(whereis("a") == self(), whereis("b"))
       local has = false for _, n in ipairs(registered()) do has = has or n == "a" end puts(has)
       unregister("a") puts(whereis("a"))'
  assert_output $'true\tnil\ntrue\nnil'
}

@test "names: what is refused" {
  refused 'register("", self())
register("a b", self())
register("a", 5)
register("x", self()) register("x", self())
unregister("nobody")
local p, r = spawn_monitor(function() end) receive() register("dead", p)
whereis({})'
  assert_line --index 0 --partial 'not a process name: it is empty'
  assert_line --index 1 --partial 'not a process name: it has a blank'
  assert_line --index 2 --partial "bad argument #2 to 'register' (pid expected, got number)"
  assert_line --index 3 --partial "the name 'x' cannot be registered: the name is taken"
  assert_line --index 4 --partial "no process has the name 'nobody'"
  assert_line --index 5 --partial "the name 'dead' cannot be registered: no such process"
  assert_line --index 6 --partial "bad argument #1 to 'whereis' (string expected, got table)"
}

@test "a name goes in every way that a process ends" {
  lua 'local ways = {
         returns = function() end, exits = function() exit("x") end, fails = function() error("boom") end,
         killed = function() exit(self(), "kill") receive() end,
         linked = function() spawn_link(function() exit("x") end) receive() end,
         memory = function() local t = {} while true do t[#t + 1] = ("x"):rep(1 << 20) .. #t end end,
       }
       for name, way in pairs(ways) do
         local pid, ref = spawn_monitor(function() register(name, self()) receive() way() end)
         while not whereis(name) do sleep(1) end
         send(pid, "go") receive_match({"DOWN", ref})
         puts(name, whereis(name), global.whereis_name(name))
       end'
  for way in returns exits fails killed linked memory; do assert_line "$way	nil	nil"; done
}

@test "global names: the whole cluster sees them at once" {
  two_nodes
  lua 'local two, me = ..., self()
       local rival = spawn(receive)
       puts(global.register_name("boss", me), global.register_name("boss", me), global.register_name("boss", rival))
       puts(global.whereis_name("boss") == me)
       node.spawn(two, function()
         local pid = global.whereis_name("boss")
         global.send("boss", pid == me, global.register_name("boss", self()), table.concat(global.registered_names(), ","))
       end)
       puts(receive(5000))
       local other = node.spawn(two, function() receive() end)
       puts(global.re_register_name("boss", other), global.whereis_name("boss") == other)
       puts(global.unregister_name("boss"), global.whereis_name("boss"), global.unregister_name("boss"))
       puts(select(2, pcall(global.send, "boss", 1)))' "two@$HOST"
  assert_line --index 0 $'true\ttrue\tfalse'
  assert_line --index 1 true
  assert_line --index 2 $'true\tfalse\tboss'
  assert_line --index 3 $'true\ttrue'
  assert_line --index 4 $'true\tnil\tfalse'
  assert_line --index 5 --partial "no process has the global name 'boss'"
}

# --- ties: the rules are in erlang-rules.bats --------------------------------------------------------------

@test "exit, link, monitor: bad arguments" {
  refused 'exit(5, "x")
exit(nil, "x")
link("name")
link(monitor(self()))
monitor(5)
demonitor(self())
unlink()
trap_exit(1)
group_leader(5)'
  assert_line --index 0 --partial "bad argument #1 to 'exit' (pid expected, got number)"
  assert_line --index 1 --partial "bad argument #1 to 'exit' (pid expected, got nil)"
  assert_line --index 2 --partial "bad argument #1 to 'link' (pid expected, got string)"
  assert_line --index 3 --partial "bad argument #1 to 'link' (pid expected"
  assert_line --index 4 --partial "bad argument #1 to 'monitor' (pid expected, got number)"
  assert_line --index 5 --partial "bad argument #1 to 'demonitor' (reference expected"
  assert_line --index 6 --partial "bad argument #1 to 'unlink' (pid expected, got no value)"
  assert_line --index 7 --partial "bad argument #1 to 'trap_exit' (boolean expected, got number)"
  assert_line --index 8 --partial "bad argument #1 to 'group_leader' (pid expected, got number)"
}

@test "exit ends the process, whatever pcall stands around it" {
  lua 'local pid, ref = spawn_monitor(function() pcall(exit, {"my", n = 1}) puts("never") end)
       local _, _, _, reason = receive() puts(inspect(reason))
       pid, ref = spawn_monitor(function() table.sort({1, 2, 3}, function() exit("sorted") end) end)
       puts(select(4, receive()))
       pid, ref = spawn_monitor(function() exit() end) puts(select(4, receive()))'
  assert_output $'{"my", n = 1}\nsorted\nnormal'
}

@test "an error ends only its process, with message and traceback as the reason and on the group leader" {
  lua 'local pid, ref = spawn_monitor(function() local function deep() error("boom") end deep() end)
       local _, _, _, reason = receive()
       puts("reason", reason[1], reason[2], reason[3]:match("^stack traceback:") ~= nil)
       spawn_monitor(function() error({code = 5}) end) puts(select(4, receive())[2])'
  assert_line --regexp $'^reason\terror\t-e:1: boom\ttrue$'
  assert_line --regexp '^process <0\.[0-9.]+> ended: -e:1: boom$'
  assert_line '{code = 5}'
}

@test "the report of an error: a pid that its reader can use, and nothing that a terminal acts on" {
  run -1 node-spawn -n one -e 'error("red \27[31m\r\u{9b}\0é\n\tnext", 0)'
  assert_line --regexp '^process <0\.[0-9.]+> ended: red \\x1B\[31m\\r\\u009B\\x00é$'
  assert_line $'\tnext'
  run -1 node-spawn -n one -e 'error(("x"):rep(1 << 20), 0)'
  assert_line --regexp 'xxx\.\.\. and 983040 bytes more$'
  two_nodes
  run -1 node-spawn -n one "two@$HOST" -e 'error("far")'
  assert_line --regexp "^process <two@$HOST\.[0-9]+\.1> ended: -e:1: far$"
}

# --- isolation ---------------------------------------------------------------------------------------------

@test "each process has its own globals, and cannot change the libraries" {
  lua 'x = 1
       spawn(function(me) send(me, x) x = 2 end, self()) puts(receive()) puts(x)'
  assert_output $'nil\n1'
  refused 'string.shout = 1
rawset(string, "shout", 1)
getmetatable("").__index = nil
setmetatable(string, {})
node.self = 1
setmetatable({}, {__gc = print})'
  assert_line --index 0 --partial 'the standard library cannot be changed'
  assert_line --index 1 --partial 'the standard library cannot be changed'
  assert_line --index 2 --partial 'attempt to index a boolean value'
  assert_line --index 3 --partial 'cannot change a protected metatable'
  assert_line --index 4 --partial 'the standard library cannot be changed'
  assert_line --index 5 --partial '__gc is not available'
}

@test "a global that is replaced is replaced in its process only" {
  lua 'spawn_monitor(function() print = nil string = nil send = nil end) receive()
       spawn_monitor(function() puts(string.upper("whole")) print("still here") end) receive()'
  assert_output $'WHOLE\nstill here'
}

@test "functions of Lua that are missing" {
  lua 'for _, name in ipairs{"coroutine", "debug", "dofile", "loadfile"} do puts(name, _G[name]) end
       puts(os.exit, os.execute, os.setlocale, io.popen, io.stdin, io.read, string.dump, package.loadlib)
       puts(select(2, load("\27Lua", "x", "bt")))'
  assert_line --index 0 $'coroutine\tnil'
  assert_line --index 3 $'loadfile\tnil'
  assert_line --index 4 $'nil\tnil\tnil\tnil\tnil\tnil\tnil\tnil'
  assert_line --index 5 --partial 'attempt to load a binary chunk'
}

@test "node-lua(7) tells of every function that is there, and of no other" {
  readarray -t names < <(sed -nE 's/^\.It Fn ([a-z_.]+).*/\1/p' "$ROOT/man/node-lua.7" | grep -vE '^(init|handle_.*|terminate)$')
  [ "${#names[@]}" -gt 70 ]
  lua 'local told, modules = {}, {node = node, global = global}
    for _, name in ipairs{"server", "supervisor", "task", "group"} do modules[name] = require(name) end
    for _, name in ipairs{...} do
      local module, field = name:match("^(.*)%.(.*)$")
      told[name] = module and modules[module][field] or _G[name] or false
      if not told[name] then puts("there is no " .. name) end
    end
    local callbacks = {init = true, handle_call = true, handle_cast = true, handle_info = true, terminate = true, enter = true, text = true}
    for module, t in pairs(modules) do
      for field in pairs(t) do
        local name = module .. "." .. field
        if told[name] == nil and not callbacks[field] then puts(name .. " is not told of") end
      end
    end' "${names[@]}"
  assert_output ""
}

@test "an endless loop does not delay other processes" {
  needs_preemption
  lua 'for _ = 1, 4 do spawn_link(function() while true do end end) end
       for _ = 1, 4 do spawn_link(function() local function f() return f() end f() end) end
       for _ = 1, 20 do sleep(1) end puts("still here")'
  assert_output 'still here'
}

@test "a process that exceeds the memory limit ends alone, with the reason memory" {
  lua 'spawn_monitor(function() local t = {} while true do t[#t + 1] = ("x"):rep(1 << 20) .. #t end end)
       puts(select(4, receive(20000)))'
  assert_line memory
  lua 'spawn_monitor(function() local function f() return 1 + f() end f() end)
       puts(select(4, receive(20000))[2])'
  assert_line --partial 'stack overflow'
}

# --- output ------------------------------------------------------------------------------------------------

@test "puts, print: a line on the group leader; puts of a pid first prints there" {
  lua 'puts("a", 1, nil, true) print("b", 2) puts() puts(self()) io.write("no", " newline") puts("")'
  assert_line --index 0 $'a\t1\tnil\ttrue'
  assert_line --index 1 $'b\t2'
  assert_line --index 2 --regexp '^<0\.[0-9]+\.[0-9]+>$'
  assert_line --index 3 'no newline'
  lua 'local me = self() puts(me, "to me") local kind, from, bytes = receive() puts(kind, from == me, inspect(bytes))'
  assert_output $'stdout\ttrue\t"to me\\n"'
}

@test "group_leader: inherited, and set for oneself and for others" {
  two_nodes
  lua 'local me, tool = self(), group_leader()
       spawn(function() send(me, group_leader() == tool) end) puts(receive())
       group_leader(me)
       while group_leader() ~= me do sleep(1) end
       spawn(function() puts("caught") end) puts(tool, inspect({select(3, receive())}))
       group_leader(tool) while group_leader() ~= tool do sleep(1) end
       for _, where in ipairs{node.self(), ...} do
         local pid = node.spawn(where, function() receive() puts("captured") send(me, "done") end)
         group_leader(me, pid) send(pid, "go")
         puts(tool, inspect({select(3, receive(5000))}), (receive(5000)))
       end' "two@$HOST"
  assert_output $'true\n{"caught\\n"}\n{"captured\\n"}\tdone\n{"captured\\n"}\tdone'
}

@test "spawn and send: what a function has captured may have any size and depth, also on another node" {
  two_nodes
  lua 'local me, n, list, f, t = self(), 0, {}, function() return 0 end, {s = ("x"):rep(200000)}
       local last = list
       for i = 1, 20000 do list = {next = list, i} end
       last.next = list
       for i = 1, 5000 do local g = f f = function() n = n + 1 return g end end
       for i = 1, 10000 do t[i] = {i, "k" .. i} end
       local function check()
         local at, links, calls, sum, g = list, 0, 0, 0, f
         repeat links, at = links + 1, at.next until at == list
         while g ~= 0 do calls, g = calls + 1, g() end
         for i, v in ipairs(t) do sum = sum + (v[1] == i and v[2] == "k" .. i and 1 or 0) end
         return links, calls, n, sum, #t.s
       end
       for _, where in ipairs{node.self(), ...} do
         node.spawn(where, function() send(me, check()) end) puts(receive(20000))
         node.spawn(where, function(get) n = n + 5 local _, _, n = get() send(me, n) end, check) puts(receive(20000))
         local pid = node.spawn(where, function() send(me, (receive()())) end) send(pid, check) puts(receive(20000))
         for i = 0, 3 do
           local pid, ref = node.spawn_monitor(where, function() receive() return check end)
           sleep(10 * i) exit(pid, "kill")
           local _, from, _, why = receive_match({"DOWN", ref}, 20000) puts(from == ref, why)
         end
       end' "two@$HOST"
  local of_one=$'20001\t5001\t5000\t10000\t200000\n5005\n20001\ntrue\tkilled\ntrue\tkilled\ntrue\tkilled\ntrue\tkilled'
  assert_output "$of_one"$'\n'"$of_one"
}

@test "inspect: values as they are written, cycles and depth without end" {
  lua 'local t = {1, "two", x = {y = 1.0}} t.me = t
       puts(inspect(t), inspect(nil), inspect("a\nb\0\255"), inspect(0/0))
       local deep = {} for _ = 1, 10000 do deep = {deep} end puts(#inspect(deep) < 1000)
       puts(inspect(print), select(2, pcall(inspect)))'
  assert_line --index 0 --partial '{1, "two", me = {cycle}, x = {y = 1.0}}'
  assert_line --partial true
  assert_line --partial 'value expected'
}

# --- nodes -------------------------------------------------------------------------------------------------

@test "node.*: names of this node and of connected ones" {
  two_nodes
  lua 'local two = ...
       puts(node.self(), table.concat(node.list(), ","))
       puts(math.type(node.ping(two)), node.ping("two@nowhere.invalid"))
       puts(node.disconnect(two), #node.list(), node.disconnect(two))
       puts(node.connect(two), #node.list())
       puts(node.connect("two@nowhere.invalid"))
       puts(node.ping("nonsense"))' "two@$HOST"
  assert_line --index 0 "one@$HOST	two@$HOST"
  assert_line --index 1 --regexp $'^integer\tnil\t.*\\(resolve\\)'
  assert_line --index 2 $'true\t0\tfalse'
  assert_line --index 3 $'true\t1'
  assert_line --index 4 --regexp $'^false\t.*\\(resolve\\)'
  assert_line --index 5 --partial 'not a node name'
}

@test "node.spawn: a closure runs there, and prints here" {
  two_nodes
  lua 'local here, me = node.self(), self()
       local pid = node.spawn(..., function(...) puts(node.self(), "from " .. here, ...) send(me, self()) end, 1, "x")
       puts(receive(5000) == pid)
       pid = node.spawn(here, function() send(me, node.self()) end) puts(receive(5000) == here)
       local _, ref = node.spawn_monitor(..., function() exit({"ended", node.self()}) end)
       puts(inspect(select(4, receive(5000))))
       trap_exit(true)
       pid = node.spawn_link(..., function() exit("linked") end)
       local kind, p, reason = receive(5000) puts(kind, p == pid, reason)' "two@$HOST"
  assert_line "two@$HOST	from one@$HOST	1	x"
  assert_line --index 1 true
  assert_line --index 2 true
  assert_line --index 3 "{\"ended\", \"two@$HOST\"}"
  assert_line --index 4 $'EXIT\ttrue\tlinked'
}

@test "node.spawn: a node that cannot be reached, a module that is not there" {
  two_nodes
  lua 'puts(select(2, pcall(node.spawn, "two@nowhere.invalid", print)))
       puts(select(2, pcall(node.spawn, ..., "no_such_module", "start")))
       puts(select(2, pcall(node.spawn, ..., 5)))' "two@$HOST"
  assert_line --partial '(resolve)'
  assert_line --partial "module 'no_such_module' not found"
  assert_line --partial "a function, or a module's and a function's name, expected"
}

@test "node.monitor: nodeup and nodedown; of one node, DOWN" {
  two_nodes
  lua 'local two = ...
       node.monitor(true)
       local ref = node.monitor(two)
       node.disconnect(two)
       local kind, name = receive_match({"nodedown"}, 5000) puts(kind, name)
       local _, _, _, reason = receive_match({"DOWN", ref}, 5000) puts(reason)
       node.connect(two)
       puts(receive_match({"nodeup"}, 5000))
       node.monitor(false) node.disconnect(two) sleep(50) puts(receive(0))' "two@$HOST"
  assert_output "nodedown	two@$HOST
noconnection
nodeup	two@$HOST
nil"
}

# --- commands and files ------------------------------------------------------------------------------------

@test "exec: a command is a process; its output and its end are messages" {
  lua 'local pid, ref = exec{"sh", "-c", "echo out; echo err >&2; exit 3", monitor = true}
       local seen = {}
       repeat
         local kind, a, b, c = receive(5000)
         if kind == "DOWN" then puts("DOWN", a == ref, b == pid, inspect(c)) else puts(kind, a == pid, inspect(b)) end
       until kind == "DOWN"'
  assert_line $'stdout\ttrue\t"out\\n"'
  assert_line $'stderr\ttrue\t"err\\n"'
  assert_line $'exit_status\ttrue\t3'
  assert_line $'DOWN\ttrue\ttrue\t{"exit", 3}'
}

@test "exec: cwd, env, timeout, kill" {
  lua 'local function last(pid, ref) return inspect(select(4, receive_match({"DOWN", ref}, 5000))) end
       exec{"sh", "-c", "echo $PWD $A", cwd = "/", env = {A = "b"}} puts((select(3, receive_match({"stdout"}, 5000))))
       puts(last(exec{"sleep", "300", timeout = 500, monitor = true}))
       local pid, ref = exec{"sleep", "300", monitor = true} exit(pid, "kill") puts(last(pid, ref))
       pid, ref = exec{"sh", "-c", "trap : TERM; while :; do sleep 0.02; done", timeout = 500, kill_after = 100, monitor = true}
       puts(last(pid, ref))
       puts(pcall(exec, {"true", kill_after = -1}))'
  assert_line --index 0 '/ b'
  assert_line --index 3 --regexp 'timeout'
  assert_line --index 4 --partial 'milliseconds'
  assert_line --index 1 --regexp 'timeout|signal'
  assert_line --index 2 --regexp 'killed|signal'
}

@test "exec: KILL follows the first exit signal, however many come" {
  lua 'local pid, ref = exec{"sh", "-c", "trap : TERM; while :; do sleep 0.02; done", kill_after = 400, monitor = true}
       local down
       for i = 1, 100 do
         exit(pid, "enough")
         down = receive_match({"DOWN", ref}, 50)
         if down then break end
       end
       puts(down and "ended" or "runs")
       exit(pid, "kill")'
  assert_line "ended"
}

@test "exec: what is refused" {
  refused 'exec()
exec{}
exec{"ls", env = 5}
exec{"ls", env = {1}}
exec{print}
exec{"a\0b"}
exec{"no-such-command"}'
  assert_line --index 0 --partial "bad argument #1 to 'exec' (table expected, got no value)"
  assert_line --index 1 --partial 'a list with the command and its arguments expected'
  assert_line --index 2 --partial "exec: 'env' is a number, not a table"
  assert_line --index 3 --partial "exec: 'env' maps names to strings"
  assert_line --index 4 --partial 'exec: argument 1 is a function'
  assert_line --index 5 --partial 'exec: argument 1 has a NUL byte'
  assert_line --index 6 --partial 'no-such-command: command not found'
}

@test "exec: the metamethods of a spec do not run" {
  lua 'local sink = spawn(function() while true do receive() end end)
       local n = 32767
       local spec = setmetatable({}, {__len = function() return n end, __index = function(_, k)
         if k == n then send(sink, "exec", {aaaa = "zz"}) return "" end
         if type(k) == "number" then return "a" end
       end})
       puts(select(2, pcall(function() exec(spec) end)))'
  assert_output --partial "bad argument #1 to 'exec' (a list with the command and its arguments expected)"
  lua 'puts("the node lives")'
  assert_output 'the node lives'
}

@test "sh: output and status; other messages stay, other processes go on" {
  lua 'local me = self() send(me, "kept")
       spawn(function() for i = 1, 3 do sleep(1) end send(me, "ran") end)
       puts(sh("sleep 0.1; printf %s out; exit 3")) puts(receive(0)) puts(receive(0))
       puts(sh("kill -9 $$")) puts(select(2, pcall(sh))) puts(sh("echo oops >&2"))'
  assert_line --index 0 $'out\t3'
  assert_line --index 1 kept
  assert_line --index 2 ran
  assert_line --index 3 $'\t137'
  assert_line --index 4 --partial "bad argument #1 to 'sh' (string expected)"
  assert_line oops
}

@test "300,000 monitors of the console do not hold up the node" {
  node-spawn -n "one@$HOST" -d --name monitors -e 'local c = whereis("console")
    for _ = 1, 300000 do monitor(c) end register("done", self()) receive()'
  wait_until node-whereis -n "one@$HOST" --local "done"
  run -0 node-ps -n "one@$HOST" --timeout 2
  run -0 node-kill -n "one@$HOST" monitors
  run -0 node-ps -n "one@$HOST" --timeout 2
  run -0 node-spawn -n "one@$HOST" -- true
}

@test "a process may have 256 open files; those that it cannot reach any more do not count" {
  lua 'for _ = 1, 2000 do assert(io.open("/dev/null")) end
    local t, f, why, number = {}
    repeat f, why, number = io.open("/dev/null") t[#t + 1] = f until not f
    puts(#t, why, number)
    t[1]:close() puts(io.type(t[1])) t[1] = io.open("/dev/null") puts(io.type(t[1]), (io.open("/dev/null")))'
  assert_output "256	/dev/null: too many open files: a process may have 256 (node-start --max files)	24
closed file
file	nil"
}

@test "what a process has written to a file is there when it has ended, without close or collector" {
  lua 'local path = ...
    local pid, ref = spawn_monitor(function() kept = io.open(path, "w") kept:write("all of it") end)
    receive_match{"DOWN", ref}
    puts(io.open(path):read("a"))' "$T/written"
  assert_output 'all of it'
}

@test "a command has no descriptors but its own" {
  lua 'local kept = io.open("/etc/passwd") puts(sh("ls -l /proc/self/fd | grep -c passwd; echo $(ls /proc/self/fd)"))'
  assert_line --index 0 0
  assert_line --index 1 '0 1 2 3' # the last one is that of the directory
}

@test "io: a file whose reader could block for ever is refused, and the error says how to read it" {
  mkfifo "$T/fifo"
  lua 'for _, mode in ipairs{"r", "w", "r+"} do puts(select(2, io.open(..., mode))) end
       puts(select(2, pcall(io.lines, ...)))' "$T/fifo"
  for i in 0 1 2 3; do
    assert_line --index $i --partial "$T/fifo: a pipe, a terminal or the like"
  done
  node-stop -n "one@$HOST"
}

@test "ls: sorted names; an error names the directory" {
  mkdir "$T/d" && touch "$T/d/b" "$T/d/a" "$T/d/.hidden"
  lua 'puts(table.concat(ls(...), ",")) puts(select(2, pcall(ls, "/no/such")))' "$T/d"
  assert_line --index 0 '.hidden,a,b'
  assert_line --index 1 --partial '/no/such: No such file or directory'
}

@test "require: once a process, by a plain name only, a syntax error with file and line" {
  echo 'n = (n or 0) + 1 return {n = n}' >counter.lua
  echo 'x = = 1' >broken.lua
  start_node three
  run -0 node-spawn -n "three@$HOST" -e 'puts(require("counter").n, require("counter").n, n)
    spawn_monitor(function() puts(require("counter").n) end) receive()
    puts(select(2, pcall(require, "broken"))) puts(select(2, pcall(require, "none"))) puts(select(2, pcall(require, "../x")))'
  assert_line --index 0 $'1\t1\t1'
  assert_line --index 1 1
  assert_line --regexp 'broken\.lua:1: .*unexpected symbol'
  assert_line --partial "module 'none' not found"
  assert_line --partial "'../x' is not a module's name"
}

@test "node-stop ends a node whatever its green threads do" {
  needs_preemption
  local hog
  for hog in 'string.find(("a"):rep(1e5), ("a-"):rep(10) .. "b")' 'table.move({}, 1, 1e18, 2)' \
    'tostring(setmetatable({}, {__tostring = function() while true do end end}))' \
    'load(function() while true do pcall(function() while true do end end) end end)' \
    'local x <close> = setmetatable({}, {__close = function() while true do end end}) exit("x")'; do
    run -0 node-spawn -n "one@$HOST" -d -e "$hog"
  done
  run -0 timeout 10 node-stop -n "one@$HOST"
}

@test "callbacks of gsub and sort may wait; inside other C functions only waiting is refused" {
  lua 'send(self(), "b") puts((string.gsub("a", "a", function() return receive(5000) end)))
       local t = {3, 1, 2} table.sort(t, function(a, b) sleep(1) return a < b end) puts(table.concat(t))
       puts(select(2, load(function() receive() end))) puts("alive")'
  assert_line --index 0 b
  assert_line --index 1 123
  assert_line --index 2 --partial 'receive cannot wait here: a callback of a C function runs'
  assert_line --index 3 alive
}

@test "a module that failed can be required again" {
  mkdir -p "$T/path"
  start_node four --path "$T/path"
  run -0 node-spawn -n "four@$HOST" --timeout 20 -e 'local dir = ... local function put(name, text) local f = io.open(dir .. "/" .. name, "w") f:write(text) f:close() end
       put("flaky.lua", "require(\"dependency\") return 1")
       puts((select(2, pcall(require, "flaky")):gsub("\n.*", "")))
       put("dependency.lua", "return 2") puts(require("flaky")) puts(require("dependency"), require("flaky"))
       put("own.lua", "package.loaded[(...)] = 25") puts((require("own")))
       put("a.lua", "return require(\"b\")") put("b.lua", "return require(\"a\")") puts(select(2, pcall(require, "a")))
       put("b.lua", "return 3") puts((require("a")))' -- "$T/path"
  assert_line --index 0 --regexp "flaky\.lua:1: module 'dependency' not found:\$"
  assert_line --index 1 "$(printf '1\t%s' "$T/path/flaky.lua")"
  assert_line --index 2 $'2\t1'
  assert_line --index 3 25
  assert_line --index 4 --partial "module 'a' requires itself, directly or through another"
  assert_line --index 5 3
}

@test "the libraries are loaded modules" {
  lua 'for _, name in ipairs{"_G", "string", "table", "math", "os", "io", "utf8"} do
         if require(name) ~= _G[name] or package.loaded[name] ~= _G[name] then puts(name) end
       end
       string = nil puts(require("string").upper("ok"))'
  assert_output OK
}

@test "arguments and results are those of Lua 5.4" {
  lua 'puts(type(tostring(setmetatable({}, {__tostring = function() return 7 end}))))
       puts(select("#", table.unpack(setmetatable({}, {}), 4, math.mininteger)))
       puts(select(2, pcall(function() table.insert(setmetatable({}, {}), nil, "x") end)))
       puts(select(2, pcall(function() table.insert(setmetatable({}, {}), 1.5, "x") end)))
       puts(load("return 1", "=x", "b"))
       puts(select(2, pcall(function() load() end)))
       local path = os.tmpname() local f = io.open(path, "w") f:write("a\n") f:close()
       local it = io.lines(path) while it() do end puts(select(2, pcall(it))) os.remove(path)
       puts(xpcall(error, error)) puts(xpcall(error, function() return select(2, pcall(error, "again", 0)) end))
       local len = setmetatable({}, {__len = function() error("len", 0) end, __index = function() return "x" end})
       puts(pcall(table.concat, len, ",", 1, 2)) puts(pcall(table.insert, len, 1, 2, 3))'
  assert_output "string
0
-e:3: bad argument #2 to 'insert' (number expected, got nil)
-e:4: bad argument #2 to 'insert' (number has no integer representation)
nil	attempt to load a text chunk (mode is 'b')
-e:6: bad argument #1 to 'load' (function expected, got no value)
file is already closed
false	error in error handling
false	again
false	len
false	len"
}

@test "the report of an error object has the words of its __tostring" {
  local code
  report() { run -1 node-spawn -n "one@$HOST" --timeout 20 -e "error(setmetatable({5}, {__tostring = function() $1 end}))"; }
  report 'return "E42: disk full"'
  assert_line --partial 'ended: E42: disk full'
  for code in 'receive()' 'error("no")' 'return 5' 'string.rep("x", 1 << 40)'; do
    report "$code"
    assert_line --partial 'ended: {5}'
  done
  lua 'local _, ref = spawn_monitor(function() error("a\0b", 0) end) puts(#select(4, receive(5000))[2])'
  assert_line --index -1 3
}

@test "a message that cannot be made at its receiver does not end the receiver" {
  lua 'local me = self()
       local victim = spawn(function() while true do receive() send(me, "survived") end end)
       local meta = {} local t = setmetatable({}, meta) meta.__gc = function() end
       puts(select(2, pcall(send, victim, function() return t end)))
       send(victim, "?") puts(receive(5000))'
  assert_line --index 0 --partial "'t': a table with a __gc metamethod cannot be sent"
  assert_line --index 1 survived
}

@test "no function is harmed by objects whose metamethods send, exit, raise, wait or never return" {
  needs_preemption
  PATIENCE=120 lua "$(<"$ROOT/tests/hostile.lua")"
  assert_line --index -1 $'true\ttrue'
  run -0 node-ping "one@$HOST"
  lua 'puts("alive")'
  assert_output alive
}

@test "exec where it cannot wait leaves no monitor" {
  lua 'puts(select(2, load(function() exec{"true", monitor = true} end)))
       puts(#process_info(self()).monitors)'
  assert_line --index 0 --partial 'exec cannot wait here: a callback of a C function runs'
  assert_line --index 1 0
}
