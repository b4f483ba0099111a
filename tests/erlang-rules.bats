#!/usr/bin/env bats
# The rules of processes and signals, as the "Processes" chapter of the Erlang reference manual states them; one
# test each, named by its rule.  What speaks of signals is tried within a node and between two.

load helper

# where: the node of the other process.  is: equal, as values.  comes: the next message.  silence: no message comes.
LUA='local where, me = ..., self()
  local function is(got, want)
    if inspect(got) ~= inspect(want) then error("got " .. inspect(got) .. ", not " .. inspect(want), 2) end
  end
  local function comes(...)
    local got, want = table.pack(receive(5000)), table.pack(...)
    if inspect(got) ~= inspect(want) then error("got " .. inspect(got) .. ", not " .. inspect(want), 2) end
  end
  local function silence() is(receive(60), nil) end
  local function idle() receive() end
  local function there(f, ...) return node.spawn(where, f, ...) end
  local function watched(f, ...) return node.spawn_monitor(where, f, ...) end
  local function traps() trap_exit(true) send(me, "ready") while true do send(me, receive()) end end
  local function ready(f) local pid, ref = watched(f) comes("ready") return pid, ref end '
LUA=${LUA//$'\n'/ }

setup() {
  node_setup
  start_node one
  two_nodes
}

within() {
  run -0 node-spawn -n "one@$HOST" --timeout "${PATIENCE:-20}" -e "$LUA $1 puts('held')" -- "${2:-one@$HOST}" || { echo "$output"; return 1; }
  assert_line held
}

across() { within "$1" "two@$HOST"; }

everywhere() {
  within "$1"
  across "$1"
}

# The node two is gone without a farewell.
break_two() { kill -KILL "$(api two GET /v1/node | jq .os_pid)"; }

# --- creation and termination ------------------------------------------------------------------------------

@test "spawn returns the pid of the new process, and both run on" {
  everywhere 'local pid = there(function() send(me, self(), receive()) end) send(pid, "hello") comes(pid, "hello")'
}

@test "a process that has run to its end terminates for the reason normal" {
  everywhere 'local pid, ref = watched(function() end) comes("DOWN", ref, pid, "normal")'
}

@test "exit(reason) terminates the caller for that reason" {
  everywhere 'local pid, ref = watched(function() exit({"any", value = 1}) end)
    comes("DOWN", ref, pid, {"any", value = 1})'
}

@test "an error terminates the process, with the error and the stack as its reason" {
  everywhere 'local pid, ref = watched(function() error("boom", 0) end)
    local _, _, _, reason = receive(5000)
    is(reason[1], "error") is(reason[2], "boom") is(reason[3]:match("^stack traceback"), "stack traceback")'
}

@test "a new process has its creator's group leader" {
  everywhere 'there(function() send(me, group_leader()) end) comes(group_leader())'
}

# --- registered names --------------------------------------------------------------------------------------

@test "a name stands for one process at a time" {
  within 'register("n", me) local other = spawn(idle)
    is(pcall(register, "n", other), false) is(pcall(register, "n", me), false) is(whereis("n"), me)'
}

@test "a name is unregistered as its process terminates, before anyone is told" {
  within 'for _ = 1, 200 do
      local pid, ref = spawn_monitor(function() register("n", self()) end)
      comes("DOWN", ref, pid, "normal") is(whereis("n"), nil)
    end'
}

@test "a message to a name that nobody has is an error" {
  within 'is(pcall(send, "nobody", 1), false)'
}

@test "a message to {name, node} that nobody has is lost in silence" {
  everywhere 'send({"nobody", where}, 1) silence()'
}

# --- signals -----------------------------------------------------------------------------------------------

@test "signals from one process to another arrive in the order they were sent" {
  everywhere 'there(function() for i = 1, 5000 do send(me, i) end end)
    for i = 1, 5000 do is(receive(5000), i) end'
}

@test "the order holds between signals of different kinds: messages, then an exit" {
  everywhere 'trap_exit(true)
    local pid = there(function() for i = 1, 100 do send(me, i) end exit(me, "stop") send(me, "after") end)
    for i = 1, 100 do comes(i) end comes("EXIT", pid, "stop") comes("after")'
}

@test "the order holds: link, message, unlink, exit" {
  everywhere 'local pid, ref = ready(function()
      trap_exit(true) send(me, "ready") comes("one") comes("two") send(me, "fine") receive() end)
    spawn(function() link(pid) send(pid, "one") unlink(pid) send(pid, "two") exit("boom") end)
    comes("fine") silence()'
}

@test "what a process sent before it terminated arrives before the news of its end" {
  everywhere 'trap_exit(true)
    local pid = node.spawn_link(where, function() for i = 1, 100 do send(me, i) end exit("end") end)
    local ref = monitor(pid)
    local seen = 0
    for _ = 1, 102 do
      local kind = receive(5000)
      if math.type(kind) then is(kind, seen + 1) seen = kind else is(seen, 100) end
    end'
}

@test "a signal to a process that does not exist any more is dropped" {
  everywhere 'local pid, ref = watched(function() end) comes("DOWN", ref, pid, "normal")
    send(pid, 1) exit(pid, "kill") unlink(pid) group_leader(me, pid) silence()'
}

@test "sending is asynchronous: nobody has to receive" {
  everywhere 'local pid = there(function() receive_match({"last"}) send(me, "done") end)
    for i = 1, 10000 do send(pid, i) end send(pid, "last") comes("done")'
}

# --- links -------------------------------------------------------------------------------------------------

@test "a link goes both ways: the other's end reaches the one that linked" {
  everywhere 'trap_exit(true) local pid = there(idle) link(pid) exit(pid, "boom") comes("EXIT", pid, "boom")'
}

@test "a link goes both ways: the end of the one that linked reaches the other" {
  everywhere 'local pid = ready(traps)
    local mine = spawn(function() link(pid) exit("boom") end) comes("EXIT", mine, "boom")'
}

@test "spawn_link links as it creates: no end is missed" {
  everywhere 'trap_exit(true)
    for _ = 1, 50 do local pid = node.spawn_link(where, function() exit("x") end) comes("EXIT", pid, "x") end'
}

@test "a link to oneself does nothing" {
  within 'link(me) unlink(me) local pid, ref = spawn_monitor(function() link(self()) exit("x") end)
    comes("DOWN", ref, pid, "x")'
}

@test "there is one link between two processes at most: to link twice changes nothing" {
  everywhere 'trap_exit(true) local pid = there(idle) link(pid) link(pid) exit(pid, "boom")
    comes("EXIT", pid, "boom") silence()
    pid = there(idle) link(pid) link(pid) unlink(pid) exit(pid, "boom") silence()'
}

@test "a link to a process that does not exist: an exit signal noproc" {
  everywhere 'local pid, ref = watched(function() end) comes("DOWN", ref, pid, "normal")
    local mine, mref = spawn_monitor(function() link(pid) receive() end) comes("DOWN", mref, mine, "noproc")
    trap_exit(true) link(pid) comes("EXIT", pid, "noproc") silence()'
}

@test "after unlink no exit signal of the link is received" {
  everywhere 'trap_exit(true) local pid, ref = watched(idle)
    link(pid) unlink(pid) exit(pid, "boom") comes("DOWN", ref, pid, "boom") silence()'
}

@test "unlink undoes a link that the other has made" {
  everywhere 'trap_exit(true) local pid, ref = watched(function() link(me) send(me, "linked") receive() end)
    comes("linked") unlink(pid) exit(pid, "boom") comes("DOWN", ref, pid, "boom") silence()
    local mine, mref = spawn_monitor(function() receive() exit("mine") end)
    pid = ready(function() trap_exit(true) link(mine) send(me, "ready") comes("go") unlink(mine)
      send(mine, "end") is(receive(60), nil) send(me, "quiet") end)
    send(pid, "go") comes("DOWN", mref, mine, "mine") comes("quiet")'
}

@test "unlink of a process that is not linked does nothing" {
  everywhere 'local pid, ref = watched(idle) unlink(pid) exit(pid, "x") comes("DOWN", ref, pid, "x")'
}

# --- exit signals ------------------------------------------------------------------------------------------

@test "as a process terminates, all that are linked get an exit signal with its reason" {
  everywhere 'trap_exit(true) local pid = there(function() receive() exit({"why"}) end)
    for _ = 1, 5 do spawn(function() trap_exit(true) link(pid) send(me, "linked") send(me, receive()) end) end
    for _ = 1, 5 do comes("linked") end
    send(pid, "go") for _ = 1, 5 do comes("EXIT", pid, {"why"}) end'
}

@test "exit by a link, the reason is not normal: the receiver terminates for the same reason" {
  everywhere 'local pid, ref = watched(idle) spawn(function() link(pid) exit("boom") end)
    comes("DOWN", ref, pid, "boom")'
}

@test "so it passes on from link to link" {
  everywhere 'local pid, ref = watched(function()
      spawn_link(function() spawn_link(function() spawn_link(function() exit("deep") end) receive() end) receive() end)
      receive() end)
    comes("DOWN", ref, pid, "deep")'
}

@test "exit by a link, the reason is normal: the receiver goes on" {
  everywhere 'local pid, ref = watched(function() send(me, receive()) end)
    local mine, mref = spawn_monitor(function() link(pid) end) comes("DOWN", mref, mine, "normal")
    send(pid, "still here") comes("still here")'
}

@test "exit by a link, the receiver traps: a message EXIT, pid, reason, normal too" {
  everywhere 'trap_exit(true)
    local pid = node.spawn_link(where, function() end) comes("EXIT", pid, "normal")
    pid = node.spawn_link(where, function() exit("boom") end) comes("EXIT", pid, "boom")'
}

@test "exit(pid, reason): the receiver terminates for it, without a link" {
  everywhere 'local pid, ref = watched(idle) exit(pid, {"why", 1}) comes("DOWN", ref, pid, {"why", 1})'
}

@test "exit(pid, reason), the receiver traps: a message from the sender" {
  everywhere 'local pid = ready(traps) exit(pid, "boom") comes("EXIT", me, "boom")
    exit(pid, "normal") comes("EXIT", me, "normal")'
}

@test "exit(pid, normal): is ignored" {
  everywhere 'local pid = there(function() send(me, receive()) end) exit(pid, "normal")
    send(pid, "still here") comes("still here")'
}

@test "exit(self(), normal): terminates the caller" {
  within 'local pid, ref = spawn_monitor(function() exit(self(), "normal") send(me, "never") end)
    comes("DOWN", ref, pid, "normal") silence()'
}

@test "exit(self(), reason), the caller traps: a message to itself" {
  within 'trap_exit(true) exit(me, "normal") comes("EXIT", me, "normal") exit(me, "x") comes("EXIT", me, "x")'
}

@test "exit(pid, kill): terminates unconditionally, for the reason killed" {
  everywhere 'local pid, ref = watched(idle) exit(pid, "kill") comes("DOWN", ref, pid, "killed")
    pid, ref = ready(traps) exit(pid, "kill") comes("DOWN", ref, pid, "killed")'
}

@test "those linked to a killed process get killed, which can be trapped" {
  everywhere 'trap_exit(true) local pid = node.spawn_link(where, idle) exit(pid, "kill")
    comes("EXIT", pid, "killed")
    local victim = there(idle)
    local mine, ref = spawn_monitor(function() link(victim) send(me, "linked") receive() end)
    comes("linked") exit(victim, "kill") comes("DOWN", ref, mine, "killed")'
}

@test "the reason kill of a link is a reason like others: it can be trapped" {
  everywhere 'trap_exit(true) local pid = node.spawn_link(where, function() exit("kill") end)
    comes("EXIT", pid, "kill")
    local mine, ref = spawn_monitor(function()
      node.spawn_link(where, function() exit("kill") end) receive() end)
    comes("DOWN", ref, mine, "kill")'
}

@test "trap_exit says what it was before, and can be taken back" {
  within 'is(trap_exit(true), false) is(trap_exit(true), true) is(trap_exit(false), true)
    local pid, ref = spawn_monitor(function() trap_exit(true) trap_exit(false) send(me, "ready") receive() end)
    comes("ready") exit(pid, "x") comes("DOWN", ref, pid, "x")'
}

@test "an endless loop is terminated by an exit signal as well" {
  needs_preemption
  everywhere 'local pid, ref = watched(function() while true do end end) exit(pid, "enough")
    comes("DOWN", ref, pid, "enough")'
}

# --- monitors ----------------------------------------------------------------------------------------------

@test "a monitor sends DOWN, reference, pid, reason, for every way to end" {
  everywhere 'local function check(f, want) local pid = there(f) local ref = monitor(pid) send(pid, "go")
      local kind, r, p, reason = receive(5000)
      is({kind, r, p, type(reason) == "table" and reason[1] or reason}, {"DOWN", ref, pid, want}) end
    check(function() receive() end, "normal") check(function() receive() exit("x") end, "x")
    check(function() receive() error("boom") end, "error")
    check(function() receive() exit(self(), "kill") end, "killed")
    check(function() receive() spawn_link(function() exit("linked") end) receive() end, "linked")'
}

@test "a monitor of a process that does not exist: DOWN with noproc at once" {
  everywhere 'local pid, ref = watched(function() end) comes("DOWN", ref, pid, "normal")
    ref = monitor(pid) comes("DOWN", ref, pid, "noproc") silence()'
}

@test "a monitor fires exactly once" {
  everywhere 'for _ = 1, 100 do
      local pid = there(idle) local ref = monitor(pid) exit(pid, "a") exit(pid, "b") exit(pid, "kill")
      comes("DOWN", ref, pid, "a")
    end silence()'
}

@test "monitors go one way: the end of the one that watches means nothing to the watched" {
  everywhere 'local pid = there(function() send(me, receive()) end)
    local mine, ref = spawn_monitor(function() monitor(pid) exit("boom") end) comes("DOWN", ref, mine, "boom")
    send(pid, "still here") comes("still here")'
}

@test "each call of monitor makes a monitor of its own" {
  everywhere 'local pid = there(idle) local a, b = monitor(pid), monitor(pid) is(a == b, false)
    is(demonitor(a), true) exit(pid, "x") comes("DOWN", b, pid, "x") silence()'
}

@test "spawn_monitor watches from the beginning: no end is missed" {
  everywhere 'for _ = 1, 50 do local pid, ref = watched(function() exit("x") end) comes("DOWN", ref, pid, "x") end'
}

@test "after demonitor there comes no DOWN, unless it is here already; with true that goes, too" {
  everywhere 'local pid, ref = watched(idle) is(demonitor(ref), true) is(demonitor(ref), false)
    exit(pid, "x") silence()
    local function here() local seen
      receive_match(function(_, r) seen = seen or r == ref return seen and r ~= ref end, 60) is(seen, true) end
    pid, ref = watched(idle) exit(pid, "x") here() is(demonitor(ref), false) comes("DOWN", ref, pid, "x")
    pid, ref = watched(idle) exit(pid, "x") here() demonitor(ref, true) silence()'
}

@test "to monitor oneself does nothing" {
  within 'monitor(me) local pid, ref = spawn_monitor(function() monitor(self()) exit("x") end)
    comes("DOWN", ref, pid, "x")'
}

@test "a monitor by name watches who has it now; nobody: noproc" {
  within 'local pid = spawn(function() register("n", self()) send(me, "ready") receive() end) comes("ready")
    local ref = monitor("n") unregister("n") exit(pid, "x") comes("DOWN", ref, pid, "x")
    local kind, r, _, reason = (function(ref) local k, r, p, why = receive(5000) is(r, ref) return k, r, p, why end)(monitor("nobody"))
    is(kind, "DOWN") is(reason, "noproc")'
}

# --- distribution ------------------------------------------------------------------------------------------

@test "a connection is lost: links and monitors across it fire with noconnection, once each" {
  run -0 node-spawn -n "one@$HOST" -d -e "$LUA"'
    trap_exit(true) local pid = node.spawn_link(where, idle) local ref = monitor(pid)
    register("watch", me)
    local got = {} for _ = 1, 2 do local m = {receive()} got[m[1]] = {m[#m - 1], m[#m]} end
    is(got, {EXIT = {pid, "noconnection"}, DOWN = {pid, "noconnection"}}) silence()
    register("held", me) receive()' -- "two@$HOST"
  wait_until node-whereis -n "one@$HOST" --local watch
  break_two
  wait_until node-whereis -n "one@$HOST" --local held
}

@test "a connection is closed: as if it were lost, at both ends" {
  across 'trap_exit(true)
    local pid = node.spawn_link(where, function()
      register("far", self()) trap_exit(true) send(me, "ready") is({receive()}, {"EXIT", me, "noconnection"}) receive() end)
    comes("ready") local ref = monitor(pid)
    node.disconnect(where)
    local got = {} for _ = 1, 2 do local m = {receive(5000)} got[m[1]] = m[#m] end
    is(got, {EXIT = "noconnection", DOWN = "noconnection"})
    node.connect(where) silence()'
  run -0 node-spawn -n "two@$HOST" -e 'puts(whereis("far") ~= nil)'
  assert_output true
}

@test "at the other end the lost process is noconnection as well" {
  across 'there(function()
      trap_exit(true) link(me) local ref = monitor(me) register("far", self()) send(me, "ready")
      local got = {} for _ = 1, 2 do local m = {receive()} got[m[1]] = m[#m] end
      register(got.EXIT .. "-" .. got.DOWN, self()) receive() end)
    comes("ready") trap_exit(true) node.disconnect(where)'
  wait_until node-whereis -n "two@$HOST" --local noconnection-noconnection
}

@test "a link or monitor to a node that cannot be reached: noconnection" {
  run -0 node-spawn -n "one@$HOST" -d -e "$LUA"'
    local pid = node.spawn(where, idle) register("ready", me)
    comes("go") trap_exit(true)
    local ref = monitor(pid) comes("DOWN", ref, pid, "noconnection")
    link(pid) comes("EXIT", pid, "noconnection") silence()
    register("held", me) receive()' -- "two@$HOST"
  wait_until node-whereis -n "one@$HOST" --local ready
  break_two
  gone() { [ "$(node-list -n "one@$HOST")" = '' ]; }
  wait_until gone
  node-send -n "one@$HOST" ready go
  wait_until node-whereis -n "one@$HOST" --local held
}

@test "a node that comes back is another one: what was tied to the first stays gone" {
  run -0 node-spawn -n "one@$HOST" -d -e "$LUA"'
    local pid, ref = watched(idle) register("ready", me)
    comes("DOWN", ref, pid, "noconnection") comes("go")
    ref = monitor(pid) local kind, r, p, reason = receive(5000)
    is({kind, r == ref, p == pid}, {"DOWN", true, true})
    send(pid, "lost") silence() register("held-" .. reason, me) receive()' -- "two@$HOST"
  wait_until node-whereis -n "one@$HOST" --local ready
  break_two
  gone() { [ "$(node-list -n "one@$HOST")" = '' ]; }
  wait_until gone
  two_nodes
  node-send -n "one@$HOST" ready go
  held() { node-whereis -n "one@$HOST" --local held-noconnection || node-whereis -n "one@$HOST" --local held-noproc; }
  wait_until held
}
