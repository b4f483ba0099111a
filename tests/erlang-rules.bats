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

@test "a missing function ends the new process, not its creator" {
  within 'local pid, ref = spawn_monitor("no.such.module", "f")
    local kind, r, p, reason = receive(5000)
    is({kind, r, p, reason[1]}, {"DOWN", ref, pid, "error"})'
}

@test "a process whose function returns ends with the reason normal" {
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

@test "alive: earlier signals to the process take effect first" {
  within 'for _ = 1, 300 do local pid = spawn(idle) is(alive(pid), true) exit(pid, "kill") is(alive(pid), false) end
    for _ = 1, 20 do local pid = spawn(function() while true do end end) exit(pid, "x") is(alive(pid), false) end'
}

@test "process_info describes a process; nil for one that has ended" {
  everywhere 'local pid = there(function() trap_exit(true) link(me) monitor(me) send(me, "ready") idle() end)
    comes("ready") trap_exit(true)
    local info = process_info(pid)
    is({info.kind, info.trap_exit, info.links, info.monitors, info.monitored_by}, {"thread", true, {me}, {me}, {}})
    local found = 0
    for _, list in ipairs({process_info(me).links, process_info(me).monitored_by}) do
      for _, p in ipairs(list) do if p == pid then found = found + 1 end end end
    is(found, 2) unlink(pid) is(process_info(pid).links, {})
    exit(pid, "kill") is(process_info(pid), nil)'
}

# --- registered names --------------------------------------------------------------------------------------

@test "a name stands for one process at a time" {
  within 'register("n", me) local other = spawn(idle)
    is(pcall(register, "n", other), false) is(pcall(register, "n", me), false) is(whereis("n"), me)'
}

@test "a name is removed as its process ends, before links and monitors report the end" {
  within 'for _ = 1, 200 do
      local pid, ref = spawn_monitor(function() register("n", self()) end)
      comes("DOWN", ref, pid, "normal") is(whereis("n"), nil)
    end'
}

@test "the names of a process are removed, local and global, however it ends" {
  within 'local function names(pid) register("n", pid) is(global.register_name("g", pid), true) end
    local function gone() is(whereis("n"), nil)
      local from = monotonic() while global.whereis_name("g") and monotonic() - from < 5e9 do sleep(1) end
      is(global.whereis_name("g"), nil) end
    local function ends(want, f)
      local pid, ref = spawn_monitor(function() group_leader(me) receive() f() end) names(pid) send(pid, "go")
      local _, _, _, why = receive_match({"DOWN", ref}, 9000)
      is(type(why) == "table" and why[1] or why, want) gone() end
    ends("normal", function() end)
    ends("x", function() exit("x") end)
    ends("error", function() error("boom") end)
    ends("killed", function() exit(self(), "kill") end)
    ends("linked", function() spawn_link(function() exit("linked") end) receive() end)
    ends("memory", function() local s = "x" while true do s = s .. s end end)
    local function command(want, f, ...)
      local pid, ref = exec{monitor = true, ...} names(pid) f(pid)
      local _, _, _, why = receive_match({"DOWN", ref}, 9000) is(why, want) gone() end
    command("normal", function(pid) send(pid, "go\n") end, "sh", "-c", "read -r line")
    command({"exit", 3}, function(pid) send(pid, "go\n") end, "sh", "-c", "read -r line; exit 3")
    command("killed", function(pid) exit(pid, "kill") end, "sleep", "300")'
}

@test "the names of a client are removed as it ends, those of a node as it is lost" {
  node-receive -n "one@$HOST" --global client >"$T/out" 2>"$T/err" 3>&- &
  wait_until node-whereis -n "two@$HOST" client
  kill -KILL $!
  run_out() { ! node-whereis -n "$1" "$2"; }
  wait_until run_out "one@$HOST" client
  wait_until run_out "two@$HOST" client
  across 'there(function() global.register_name("far", self()) send(me, "ready") receive() end) comes("ready")'
  run -0 node-whereis -n "one@$HOST" far
  break_two
  wait_until run_out "one@$HOST" far
}

@test "a message to a name that nobody has is an error" {
  within 'is(pcall(send, "nobody", 1), false)'
}

@test "a message to {name, node} that no process has is dropped without an error" {
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

@test "send_all: each receiver of each node gets the message once, after what was sent to it before" {
  everywhere 'local pids = {}
    for i = 1, 1500 do
      pids[i] = there(function() local a, b = receive(5000), receive(5000) send(me, i, a, b[1]) end)
    end
    pids[1501] = me
    for i = 1, 1500 do send(pids[i], i) end
    send_all(pids, {"x"})
    local got = {} for i = 1, 1501 do
      local n, a, b = receive(5000)
      if type(n) == "table" then got[1501] = n[1] else is(n, a) is(b, "x") got[n] = b end
    end
    is(#got, 1501) silence()'
}

@test "an urgent message overtakes the others" {
  everywhere 'there(function()
      for i = 1, 100 do send(me, i) end send_urgent(me, "u", {1}) send_urgent(me, "v") send(me, "done") end)
    is((receive_match({"done"}, 5000)), "done") comes("u", {1}) comes("v") comes(1)'
}

@test "an alias takes the answer and nothing after it, nor anything after a demonitor" {
  everywhere 'local pid = there(function()
      while true do local ref, n = receive() for i = 1, n do send(ref, ref, i) end send(me, "sent") end end)
    local ref = monitor(pid, true) send(pid, ref, 3)
    local got, i = receive_match(ref, 5000) is(got, ref) is(i, 1) comes("sent") is(demonitor(ref), false) silence()
    ref = monitor(pid, true) is(demonitor(ref), true) send(pid, ref, 2) comes("sent") silence()'
}

@test "the order holds: link, message, unlink, exit" {
  everywhere 'local pid, ref = ready(function()
      trap_exit(true) send(me, "ready") comes("one") comes("two") send(me, "fine") receive() end)
    spawn(function() link(pid) send(pid, "one") unlink(pid) send(pid, "two") exit("boom") end)
    comes("fine") silence()'
}

@test "the order holds between what is sent by pid and what is sent by name" {
  everywhere 'local pid = there(function()
      register("n", self()) send(me, "ready")
      for i = 1, 400 do is(receive(5000), i) end send(me, "fine") end)
    comes("ready")
    for i = 1, 400, 2 do send({"n", where}, i) send(pid, i + 1) end comes("fine")'
}

@test "the order holds: a change of the group leader, then a message" {
  everywhere 'local mine, pid = group_leader(), there(function() while true do comes("go") puts("out") end end)
    for _ = 1, 20 do
      group_leader(me, pid) send(pid, "go") comes("stdout", pid, "out\n")
      group_leader(mine, pid)
    end'
}

@test "the order holds whatever the size of a message" {
  everywhere 'local pid = there(function()
      local got = {} for i = 1, 3 do got[i] = #receive() end send(me, got) end)
    send(pid, "x") send(pid, ("x"):rep(70 << 20)) send(pid, "xx")
    is(receive(15000), {1, 70 << 20, 2})'
}

@test "a process can send to itself, in order too" {
  within 'for i = 1, 100 do send(me, i) end trap_exit(true) exit(me, "x") send(me, "last")
    for i = 1, 100 do comes(i) end comes("EXIT", me, "x") comes("last")'
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

@test "sending does not wait for a receive" {
  everywhere 'local pid = there(function() receive_match({"last"}) send(me, "done") end)
    for i = 1, 10000 do send(pid, i) end send(pid, "last") comes("done")'
}

@test "a message is taken from the middle of the mailbox: the others stay, in order" {
  everywhere 'there(function()
      for i = 1, 300 do send(me, i % 3 == 0 and "three" or "other", i) end send(me, "end", 0) end)
    receive_match({"end"}, 5000)
    for i = 3, 300, 3 do is({receive_match({"three"}, 0)}, {"three", i}) end
    is({receive_match(function(_, n) return n > 150 end, 0)}, {"other", 151})
    for i = 1, 300 do if i % 3 ~= 0 and i ~= 151 then comes("other", i) end end silence()'
}

@test "a waiting receive compares each message once" {
  within 'local looked = 0
    for i = 1, 2000 do send(me, "kept", i) end
    spawn(function() for i = 1, 200 do sleep(0) send(me, "new", i) end send(me, "wanted") end)
    receive_match(function(word) looked = looked + 1 return word == "wanted" end, 9000)
    is(looked, 2201) for i = 1, 2000 do is({receive(0)}, {"kept", i}) end'
}

# --- timers ------------------------------------------------------------------------------------------------

@test "send_after: to a pid on any node, or to the process that has the name when the time comes" {
  everywhere 'local pid = there(function() while true do send(me, "got", receive()) end end)
    send_after(20, pid, "a", {1}) comes("got", "a", {1})
    send_after(50, "late", "b") register("late", me) comes("b") unregister("late")'
}

@test "send_after to an ended process, or to a name that no process has, is no error" {
  everywhere 'local pid, ref = watched(function() end) comes("DOWN", ref, pid, "normal")
    send_after(0, pid, "x") send_after(0, "nobody", "x") silence()'
}

@test "a timer outlives the process that has set it" {
  within 'spawn(function() send_after(40, me, "still") end) comes("still")'
}

@test "a timer for a process that has terminated is cancelled; one for a name is not" {
  within 'for _ = 1, 90 do spawn(idle) end
    local pid, ref = spawn_monitor(function()
      local other, r = spawn_monitor(idle)
      local timers = {send_after(100000, self(), "x"), send_after(100000, other, "x")}
      local named = send_after(100000, "late", "x")
      exit(other, "kill") receive_match({"DOWN", r}) send(me, timers, named) end)
    local timers, named = receive(5000)
    comes("DOWN", ref, pid, "normal")
    is({cancel_timer(timers[1]), cancel_timer(timers[2])}, {false, false}) is(cancel_timer(named) > 90000, true)'
}

@test "cancel_timer returns the time left and stops the message; false when it was too late" {
  within 'local ref = send_after(100000, me, "never") local left = cancel_timer(ref)
    is(left > 90000 and left <= 100000, true) is(cancel_timer(ref), false)
    ref = send_after(1, me, "came") comes("came") is(cancel_timer(ref), false)
    ref = send_after(40, me, "never") is(cancel_timer(ref) ~= false, true) silence()
    for _ = 1, 90 do spawn(idle) end
    spawn(function() spawn(idle) spawn(function() send(me, send_after(100000, me, "never")) idle() end) end)
    ref = receive(5000) is(cancel_timer(ref) > 90000, true) is(cancel_timer(ref), false)'
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

@test "a process that is spawned with a link to one that has terminated meanwhile is not left alone" {
  across 'for i = 1, 100 do
      local parent, ref = spawn_monitor(function()
        node.spawn_link(where, function() send(me, "child", self()) receive() end) receive() end)
      local till = monotonic() + i * 20000 while monotonic() < till do sleep(0) end
      exit(parent, "kill")
      local child
      repeat local kind, a = receive(5000) if kind == "child" then child = a end until kind ~= "child"
      child = child or select(2, receive_match({"child"}, 20))
      if child then
        local cref = monitor(child)
        local _, _, _, why = receive_match({"DOWN", cref}, 5000)
        is(why == "killed" or why == "noproc", true)
      end
    end'
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

@test "after links and unlinks that cross, both ends agree" {
  everywhere 'local function party(seed)
      trap_exit(true)
      local _, other = receive_match({"with"})
      for i = 1, 40 do
        seed = (seed * 1103515245 + 12345) % 2147483648
        local what = seed // 65536 % 5
        if what < 2 then link(other) elseif what < 4 then unlink(other) else sleep(0) end
      end
      send(other, "even") receive_match({"even"})
      send(me, self(), "calm")
      local op = receive_match(function(w) return w == "link" or w == "unlink" or w == "die" end)
      if op == "die" then exit("end") end
      local ref = monitor(other)
      if op == "link" then link(other) else unlink(other) end
      send(other, "die") receive_match({"DOWN", ref})
      send(me, self(), receive_match({"EXIT", other}, 0) == (op == "link" and "EXIT" or nil))
    end
    for round = 1, 200 do
      local a, b = spawn(party, round), there(party, round * 7919)
      send(a, "with", b) send(b, "with", a)
      receive_match({a}) receive_match({b})
      if round % 2 == 0 then a, b = b, a end
      send(a, round % 3 == 0 and "unlink" or "link")
      comes(a, true)
    end'
}

@test "a link made after an unlink stays, though signals of the old one are still on their way" {
  everywhere 'trap_exit(true)
    for _ = 1, 50 do
      local pid = there(idle) link(pid) unlink(pid) link(pid) exit(pid, "boom") comes("EXIT", pid, "boom")
    end silence()'
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

@test "an exit signal spreads from link to link" {
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

@test "a monitor goes one way: the end of the monitoring process does not affect the other" {
  everywhere 'local pid = there(function() send(me, receive()) end)
    local mine, ref = spawn_monitor(function() monitor(pid) exit("boom") end) comes("DOWN", ref, mine, "boom")
    send(pid, "still here") comes("still here")'
}

@test "each call of monitor makes a monitor of its own" {
  everywhere 'local pid = there(idle) local a, b = monitor(pid), monitor(pid) is(a == b, false)
    is(demonitor(a), true) exit(pid, "x") comes("DOWN", b, pid, "x") silence()'
}

@test "spawn_monitor monitors from the start: no end is missed" {
  everywhere 'for _ = 1, 50 do local pid, ref = watched(function() exit("x") end) comes("DOWN", ref, pid, "x") end'
}

@test "after demonitor no DOWN arrives; one that had arrived stays, unless flush is true" {
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

@test "a monitor by name is of the process that has the name now; noproc when none has it" {
  within 'local pid = spawn(function() register("n", self()) send(me, "ready") receive() end) comes("ready")
    local ref = monitor("n") unregister("n") exit(pid, "x") comes("DOWN", ref, pid, "x")
    local kind, r, _, reason = (function(ref) local k, r, p, why = receive(5000) is(r, ref) return k, r, p, why end)(monitor("nobody"))
    is(kind, "DOWN") is(reason, "noproc")'
}

@test "after the exit signal that ends a process, later links and monitors get noproc" {
  everywhere 'trap_exit(true)
    for _ = 1, 100 do
      local pid = there(idle) exit(pid, "kill") local ref = monitor(pid) comes("DOWN", ref, pid, "noproc")
      pid = there(idle) exit(pid, "x") link(pid) comes("EXIT", pid, "noproc")
    end silence()'
}

# --- commands and clients are processes --------------------------------------------------------------------

@test "a command: its exit status is the reason for links and monitors" {
  within 'trap_exit(true)
    for reason, code in pairs({[{"exit", 7}] = "exit 7", [{"signal", 9}] = "kill -9 $$", normal = "exit 0"}) do
      local pid, ref = exec{"sh", "-c", code, link = true, monitor = true}
      receive_match({"exit_status", pid}, 5000)
      local got = {}
      for _ = 1, 2 do local m = {receive(5000)} got[m[1]] = {m[#m - 1], m[#m]} end
      is(got, {EXIT = {pid, reason}, DOWN = {pid, reason}})
      link(pid) comes("EXIT", pid, "noproc") ref = monitor(pid) comes("DOWN", ref, pid, "noproc") silence()
    end'
}

@test "a command ends with a linked process, unless the reason is normal or after unlink" {
  within 'local function command(f)
      local pid spawn(function() pid = exec{"cat", link = true} send(me, "pid", pid) f(pid) end)
      pid = select(2, receive_match({"pid"}, 5000)) return pid, monitor(pid) end
    local pid, ref = command(function() receive(50) exit("boom") end) comes("DOWN", ref, pid, "boom")
    local function lives(pid, ref) is(receive(100), nil) group_leader(me, pid) send(pid, "x") comes("stdout", pid, "x", 1)
      exit(pid, "kill") receive_match({"DOWN", ref}, 5000) receive_match({"exit_status"}, 5000) end
    lives(command(function() end)) lives(command(function(p) unlink(p) exit("boom") end))'
}

@test "a command: kill always gives the reason killed; else the first reason stays" {
  within 'local function command() local pid, ref = exec{"sh", "-c", "trap : TERM; echo up; while :; do sleep 0.02; done",
        monitor = true} comes("stdout", pid, "up\n", 3) return pid, ref end
    local pid, ref = command() exit(pid, "please") exit(pid, "now") exit(pid, "kill") exit(pid, "late")
    is(select(4, receive_match({"DOWN", ref}, 5000)), "killed")
    pid, ref = exec{"sleep", "300", monitor = true} exit(pid, "normal") exit(pid, "one") exit(pid, "two")
    is(select(4, receive_match({"DOWN", ref}, 5000)), "one")'
}

@test "a command that is owned ends with its owner, as that of sh does, and not the other way" {
  within 'local function owned(f)
      local mine, ref = spawn_monitor(f) local _, pid = receive_match({"pid"}, 5000)
      return mine, ref, pid, monitor(pid) end
    local function by_exec() group_leader(me) send(me, "pid", (exec{"cat", owned = true})) exit(select(2, receive_match({"go"}))) end
    for _, why in ipairs{"normal", "boom"} do
      local mine, ref, pid, cref = owned(by_exec) send(mine, "go", why)
      is(select(4, receive_match({"DOWN", ref}, 5000)), why)
      is(select(4, receive_match({"DOWN", cref}, 5000)), "owner_gone") end
    local mine, ref, pid, cref = owned(by_exec) exit(pid, "x")
    is(select(4, receive_match({"DOWN", cref}, 5000)), "x") is(alive(mine), true)
    local waits = spawn(function() sh("sleep 300") end)
    local shell repeat shell = process_info(waits).monitors[1] until shell and process_info(shell)
    cref = monitor(shell) exit(waits, "kill") is(select(4, receive_match({"DOWN", cref}, 5000)), "owner_gone")
    is(sh("echo out; exit 3"), "out\n") is(process_info(me).monitored_by[2], nil)'
}

@test "a command that cannot be run: an error, and no EXIT, no DOWN, no name" {
  within 'trap_exit(true)
    is(pcall(exec, {"/no/such/command", link = true, monitor = true, name = "n"}), false) is(whereis("n"), nil) silence()'
}

@test "a client: links and monitors report its end, with the reason" {
  client() { node-receive -n "one@$HOST" --global client >"$T/out" 2>"$T/err" 3>&- & wait_until node-whereis -n "two@$HOST" client; }
  local watch='trap_exit(true) local pid = global.whereis_name("client") link(pid) local ref = monitor(pid)
    send(pid, "hello") exit(pid, "normal") register("armed", me)
    local function ends(want) local got = {} for _ = 1, 2 do local m = {receive(5000)} got[m[1]] = m[#m] end
      is(got, {EXIT = want, DOWN = want}) silence() end '
  client
  across "$watch"'exit(pid, {"why"}) ends({"why"})'
  run -0 cat "$T/out"
  assert_output '["hello"]'
  client
  across "$watch"'exit(pid, "kill") ends("killed")'
  client
  local tool=$!
  node-spawn -n "two@$HOST" -e "$LUA $watch ends('normal') puts('held')" >"$T/held" 2>&1 3>&- &
  wait_until node-whereis -n "two@$HOST" --local armed
  kill $tool
  wait_until grep -qx held "$T/held"
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

@test "a node dies while processes are spawned on it: each has its one EXIT or DOWN, or is an error" {
  node-spawn -n "one@$HOST" -e "$LUA"'
    local function spawner(spawns)
      trap_exit(true)
      local pending, n = {}, 0
      while true do
        local ok, pid, ref = pcall(spawns, where, idle)
        if not ok then break end
        pending[ref or pid] = pid n = n + 1
      end
      for _ = 1, n do
        local m = {receive(5000)}
        is({m[1], pending[m[2]], m[#m]}, {m[1], m[1] == "DOWN" and m[3] or m[2], "noconnection"}) pending[m[2]] = nil
      end
      silence() is(next(pending), nil) send(me, "counted", n)
    end
    for i = 1, 8 do spawn(spawner, i % 2 == 0 and node.spawn_link or node.spawn_monitor) end
    register("spawning", me)
    for _ = 1, 8 do is((receive()), "counted") end puts("held")' -- "two@$HOST" >"$T/held" 2>&1 3>&- &
  wait_until node-whereis -n "one@$HOST" --local spawning
  many() { [ "$(api two GET /v1/processes | jq -s length)" -gt 300 ]; }
  wait_until many
  break_two
  wait_until grep -qx held "$T/held" || { cat "$T/held"; return 1; }
}

@test "what is sent while a connection is made waits for it: nothing is missing, and the order holds" {
  node-spawn -n "one@$HOST" -e "$LUA"'
    local pid = there(function() for i = 1, 200 do is({(receive(9000))}, {i}) end send(me, "fine") end)
    local much = ("x"):rep(60000)
    register("ready", me) comes("go")
    node.disconnect(where)
    for i = 1, 200 do
      send(pid, i, i % 20 == 0 and much:rep(20) or much)
      if i == 3 then register("sending", me) end
    end
    is(receive(15000), "fine") puts("held")' -- "two@$HOST" >"$T/held" 2>&1 3>&- &
  wait_until node-whereis -n "one@$HOST" --local ready
  local two
  two=$(api two GET /v1/node | jq .os_pid)
  freeze "$two"
  node-send -n "one@$HOST" ready go
  wait_until node-whereis -n "one@$HOST" --local sending
  kill -CONT "$two"
  wait_until grep -qx held "$T/held" || { cat "$T/held"; return 1; }
}

@test "a long message between nodes arrives as it was sent, and its sender may die meanwhile" {
  run -0 node-spawn -n "one@$HOST" -e "$LUA"'
    local echo = there(function() while true do local to, v = receive() send(to, "back", v) end end)
    local function round(v)
      send(echo, me, v)
      local _, back = receive_match({"back"})
      return back
    end
    local bytes = ("\0\1\xff\"\\"):rep(400000) .. ("gr\u{fc}n "):rep(200000)
    is(round(bytes) == bytes, true)
    local floats, rows = {}, {}
    for i = 1, 300000 do floats[i] = i / 7 end
    for i = 1, 30000 do rows[i] = {id = i, [i + 0.5] = {me, i % 2 == 0}, tags = {"a", {}, i}} end
    local back, same = round(floats), 0
    for i = 1, 300000 do if back[i] == floats[i] then same = same + 1 end end
    is(same, 300000)
    back, same = round(rows), 0
    for i = 1, 30000 do
      local b = back[i]
      if b.id == i and b[i + 0.5][1] == me and b[i + 0.5][2] == (i % 2 == 0) and b.tags[3] == i then same = same + 1 end
    end
    is(same, 30000)
    local pid, ref = spawn_monitor(function() while true do send(echo, self(), bytes) end end)
    sleep(20)
    exit(pid, "kill")
    comes("DOWN", ref, pid, "killed")
    is(round("short"), "short")
    puts("held")' -- "two@$HOST"
  assert_line held
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

@test "a node that starts again is a new one: links and monitors of the first do not come back" {
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

@test "receive_match with a new reference skips older messages, and with an old one does not" {
  lua 'for i = 1, 3 do send(self(), "old", i) end
       local pid, ref = spawn_monitor(function() receive() end)
       send(self(), "between", ref) send(self(), "old", ref) exit(pid, "x")
       puts(receive_match({"old", ref})) puts(select(4, receive_match({"DOWN", ref}, 5000)))
       local old = send_after(0, self(), "tick") receive_match({"tick"}, 5000)
       send(self(), "has", old) local new = monitor(self()) send(self(), "has", new)
       puts(receive_match({"has", old}, 0) == "has", receive_match({"has", new}, 0) == "has")
       for i = 1, 3 do puts(receive(0)) end puts(receive(0)) puts(receive(0))'
  assert_line --index 0 --partial old
  assert_line --index 1 x
  assert_line --index 2 $'true\ttrue'
  assert_line --index 3 $'old\t1'
  assert_line --index 5 $'old\t3'
  assert_line --index 6 --regexp $'^between\t'
  assert_line --index 7 nil
}
