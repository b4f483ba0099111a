-- chaos: the code that runs on the nodes of tests/chaos/run.  Each node has a process named "hub", which records what
-- the other processes of its node have seen, and one named "sink", which receives floods.  tests/chaos/run calls functions
-- by node-spawn -m, so their arguments are strings.
--
-- A hub reports each fault as a line "bad ..." on the console of its node.
--
-- A target is a process that is watched, linked, or given a global name.  An owner has one tie to one target: a monitor
-- or a link.  A tie fires when its DOWN or EXIT arrives, which must happen exactly once.

local chaos = {}

local HUB <const>, SINK <const> = "hub", "sink"

local function tell_hub(...)
  local told = pcall(send, HUB, ...)
  if not told then exit("no hub") end
end

-- --- targets ---------------------------------------------------------------------------------------------------

-- A target that lives for so many milliseconds; 0: until it gets a message to end.
function chaos.target(life)
  life = tonumber(life)
  tell_hub("target", self())
  if life > 0 then send_after(life, self(), "end") end
  while true do
    local what, name, winner = receive()
    if what == "end" then return end
    if what == "name_conflict" then tell_hub("conflict", self(), name, winner) end
  end
end

function chaos.burster(i, life)
  pcall(global.register_name, "burst" .. i, self())
  chaos.target(life)
end

function chaos.burst(count, life)
  for i = 1, tonumber(count) do spawn("chaos", "burster", i, life) end
end

-- --- owners of ties --------------------------------------------------------------------------------------------

-- Makes the tie in one of two ways: together with the spawn of the target, or to a target that runs already.
local function make(kind, there, life, variant)
  if kind == "watch" then
    if variant % 2 == 0 then return node.spawn_monitor(there, "chaos", "target", life) end
    local pid = node.spawn(there, "chaos", "target", life)
    return pid, monitor(pid)
  end
  if variant % 2 == 0 then return node.spawn_link(there, "chaos", "target", life) end
  local pid = node.spawn(there, "chaos", "target", life)
  link(pid)
  return pid
end

local function owner(kind, there, life, own, variant)
  trap_exit(true)
  tell_hub("owner", self(), kind)
  local made, pid, ref = pcall(make, kind, there, life, variant)
  if not made then return end -- the node could not be reached; a link that was made has fired
  tell_hub("tied", self(), pid)
  if own > 0 then send_after(own, self(), "end") end
  if kind == "watch" and variant % 5 == 4 then send_after(700, self(), "demonitor") end
  while true do
    local what, a, b, c = receive()
    if what == "DOWN" and a == ref then tell_hub("fired", self(), c)
    elseif what == "EXIT" and a == pid then tell_hub("fired", self(), b)
    elseif what == "demonitor" then
      demonitor(ref, true)
      tell_hub("cancelled", self())
    elseif what == "end" then exit("owner ended")
    else tell_hub("bad", self(), "an owner got " .. inspect(what) .. " of " .. inspect(a)) end
  end
end

local function owners(kind, there, count, life, own)
  for i = 1, tonumber(count) do spawn(owner, kind, there, tonumber(life), tonumber(own or 0), i) end
end

function chaos.watch(there, count, life) owners("watch", there, count, life) end
function chaos.tie(there, count, life, own) owners("link", there, count, life, own) end

-- --- floods ----------------------------------------------------------------------------------------------------

function chaos.flood(there, count, size)
  local load, me, here, dest = string.rep("x", tonumber(size)), self(), node.self(), {SINK, there}
  for i = 1, tonumber(count) do send(dest, "item", me, here, i, load) end
end

-- Checks that the messages of one sender arrive in order, each once.  A message may be missing only when the connection
-- to the sender's node was lost after the last message that arrived: "nodedown" has then arrived in between.
local function sink()
  register(SINK, self())
  node.monitor(true)
  local downs, last, all = {}, {}, 0
  local on = {}

  function on.nodedown(name) downs[name] = (downs[name] or 0) + 1 end

  function on.count(to) send(to, "count", all) end

  function on.item(from, name, i)
    local before, now = last[from], {i = i, downs = downs[name]}
    last[from], all = now, all + 1
    if not before then return end
    local what
    if i <= before.i then what = "message " .. i .. " came after message " .. before.i
    elseif i > before.i + 1 and before.downs == now.downs then
      what = "messages " .. before.i + 1 .. " to " .. i - 1 .. " were lost over a connection that held"
    end
    if what then tell_hub("bad", from, what .. ", from " .. name) end
  end

  while true do
    local what, a, b, c = receive()
    if on[what] then on[what](a, b, c) end
  end
end

-- --- the hub ---------------------------------------------------------------------------------------------------

local events = {}

function events.target(state, pid)
  state.targets[pid] = true
  monitor(pid)
end

function events.conflict(state, pid, name) table.insert(state.conflicts, {pid = pid, name = name}) end

function events.owner(state, pid, kind)
  state.owners[pid] = {kind = kind, fired = 0}
  monitor(pid)
end

function events.tied(state, pid, target) state.owners[pid].target = target end

function events.fired(state, pid, reason)
  local o = state.owners[pid]
  o.fired, o.reason = o.fired + 1, reason
  puts("tie fired") -- to the log, which outlives this node
  if o.fired > 1 then events.bad(state, pid, "a " .. o.kind .. " fired " .. o.fired .. " times") end
  if o.cancelled then events.bad(state, pid, "a monitor fired after demonitor") end
end

function events.cancelled(state, pid) state.owners[pid].cancelled = true end

function events.bad(_, pid, what) puts("bad " .. inspect(pid) .. ": " .. what) end

-- Handles the end of a target or an owner of this node.
function events.DOWN(state, _, pid)
  state.targets[pid], state.owners[pid] = nil, nil
end

events["end"] = function(state, which)
  for pid in pairs(state[which]) do send(pid, "end") end
end

function events.get(state, to) send(to, "state", state) end

-- The hub: runs until the node ends.
function chaos.hub()
  local state = {targets = {}, owners = {}, conflicts = {}}
  register(HUB, self())
  spawn(sink)
  while true do
    local what, a, b, c = receive()
    events[what](state, a, b, c)
  end
end

-- --- the check -------------------------------------------------------------------------------------------------

-- Returns a copy of the records of the hub.
local function get()
  send(HUB, "get", self())
  local _, state = receive_match({"state"}, 5000)
  return state or error("the hub does not answer")
end

local function has(list, pid)
  for _, one in ipairs(list or {}) do
    if one == pid then return true end
  end
end

-- Checks that every link has two ends.
local function check_links(pid, bad)
  local info = process_info(pid)
  for _, other in ipairs(info and info.links or {}) do
    local theirs = process_info(other)
    if not theirs then table.insert(bad, inspect(pid) .. ": is linked to a process that has ended, " .. inspect(other))
    elseif not has(theirs.links, pid) then
      table.insert(bad, inspect(pid) .. ": is linked to " .. inspect(other) .. ", which is not linked to it")
    end
  end
end

-- Checks that a tie has fired exactly when its target has ended or the connection to it was lost, and that the target
-- knows a watch that has not fired.
local function check_owner(pid, o, bad)
  if not o.target or o.cancelled or not process_info(pid) then return end
  local lives = process_info(o.target)
  if o.fired == 0 and not lives then
    table.insert(bad, inspect(pid) .. ": its " .. o.kind .. " of " .. inspect(o.target) .. ", which has ended, has not fired")
  elseif o.fired > 0 and o.reason ~= "noconnection" and lives then
    table.insert(bad, inspect(pid) .. ": its " .. o.kind .. " of " .. inspect(o.target) .. " has fired with " ..
      inspect(o.reason) .. ", but the process lives")
  elseif o.fired == 0 and o.kind == "watch" and not has(lives.monitored_by, pid) then
    table.insert(bad, inspect(pid) .. ": its watch of " .. inspect(o.target) .. " is not known there")
  end
end

local function check_names(bad)
  for _, name in ipairs(global.registered_names()) do
    local pid = global.whereis_name(name)
    if pid and not process_info(pid) then table.insert(bad, name .. ": its process " .. inspect(pid) .. " has ended") end
  end
end

local function check()
  local bad, state = {}, get()
  check_names(bad)
  for pid in pairs(state.targets) do check_links(pid, bad) end
  for pid, o in pairs(state.owners) do
    check_links(pid, bad)
    check_owner(pid, o, bad)
  end
  return bad
end

-- Prints each fault as a line "bad ...", then what was seen.  A process may be about to do what a check misses, so a
-- fault is printed only when it still exists after the given time.
function chaos.report(patience)
  local bad, tries = nil, tonumber(patience) / 200
  repeat
    bad = check()
    tries = tries - 1
  until #bad == 0 or tries < 0 or sleep(200)
  local state = get()
  for _, what in ipairs(bad) do puts("bad " .. what) end
  for _, c in ipairs(state.conflicts) do puts("conflict " .. c.name .. " " .. inspect(c.pid)) end
  send(SINK, "count", self())
  local _, messages = receive_match({"count"}, 5000)
  puts("messages " .. (messages or "unknown"))
end

-- Ends the targets of this node ("targets"), or its owners ("owners").
function chaos.finish(which) send(HUB, "end", which) end

-- Checks, when all targets have ended, that every tie has fired once.
function chaos.all_fired()
  for pid, o in pairs(get().owners) do
    if o.target and not o.cancelled and o.fired ~= 1 then
      puts("bad " .. inspect(pid) .. ": its " .. o.kind .. " of " .. inspect(o.target) .. " has fired " .. o.fired .. " times")
    end
  end
end

return chaos
