-- group: named sets of processes, on all connected nodes.
--
--   local group = require("group")
--   group.join("listeners", self())
--   for _, pid in ipairs(group.members("listeners")) do send(pid, "hello") end
--
-- Each node has one process, named "group", that is started when it is first needed.  It monitors the members of its
-- own node, and tells its peers, the same processes of the other nodes, of each change; so other nodes see a change a
-- moment later, and the changes of one node in their order.  A process that ends leaves its groups; when the connection
-- to a node is lost, its members are removed.
--
-- A process that joined a group twice is in it twice.  The rules are those of Erlang's pg.

local server = require("server")

local group = {}

local NAME <const>, PATIENCE <const> = "group", 2000

-- --- memberships -----------------------------------------------------------------------------------------------
-- A table of memberships is name -> members; there is one for this node, and one for each peer.  Members: order[i] is
-- the pid that joined as the i-th, with holes where one has left, up to i = last; places[pid] are the i of this pid.

local SPARE <const> = 64 -- so many holes are not worth a new order

local function append(members, pid)
  members.last, members.size = members.last + 1, members.size + 1
  members.order[members.last] = pid
  local places = members.places[pid] or {}
  places[#places + 1] = members.last
  members.places[pid] = places
end

local function new_members(pids)
  local members = {order = {}, places = {}, last = 0, size = 0}
  for _, pid in ipairs(pids) do append(members, pid) end
  return members
end

local function list(members)
  local pids = {}
  for i = 1, members and members.last or 0 do pids[#pids + 1] = members.order[i] end
  return pids
end

local function add(groups, name, pids)
  groups[name] = groups[name] or new_members({})
  for _, pid in ipairs(pids) do append(groups[name], pid) end
end

-- Removes the last membership of a pid; returns whether there was one.
local function remove_one(members, pid)
  local places = members.places[pid]
  if not places then return false end
  members.order[table.remove(places)] = nil
  members.size = members.size - 1
  if #places == 0 then members.places[pid] = nil end
  return true
end

-- Removes one membership for each of the pids; returns the pids that had one.
local function remove(groups, name, pids)
  local members, removed = groups[name], {}
  if not members then return removed end
  for _, pid in ipairs(pids) do
    if remove_one(members, pid) then removed[#removed + 1] = pid end
  end
  if members.size == 0 then
    groups[name] = nil
  elseif members.last > 2 * members.size + SPARE then
    groups[name] = new_members(list(members))
  end
  return removed
end

-- As they travel: name -> list of pids.
local function lists(groups)
  local all = {}
  for name, members in pairs(groups) do all[name] = list(members) end
  return all
end

local function from_lists(all)
  local groups = {}
  for name, pids in pairs(all) do groups[name] = new_members(pids) end
  return groups
end

-- --- the process: peers ----------------------------------------------------------------------------------------
-- state.peers: pid of another node's process -> its memberships, or false until it has sent them.  A process that sends
-- "discover" becomes a peer: it gets all memberships of this node, and from then on every change.  A request for
-- members waits until every peer has sent its memberships, so that the first answer on a node is complete; but at most
-- PATIENCE milliseconds a peer, as another program may have the name "group" there.

local function tell(state, ...)
  for peer in pairs(state.peers) do server.cast(peer, {...}) end
end

local function discover(process)
  server.cast(process, {"discover", self()})
end

local function meet(state, peer)
  if state.peers[peer] ~= nil then return false end
  state.peers[peer] = false
  state.refs[monitor(peer)] = peer
  send_after(PATIENCE, self(), "silent", peer)
  return true
end

local casts = {}

function casts.discover(state, peer)
  if meet(state, peer) then discover(peer) end
  server.cast(peer, {"all", self(), lists(state.own)})
end

function casts.all(state, peer, groups)
  meet(state, peer)
  state.peers[peer] = from_lists(groups)
end

function casts.join(state, peer, name, pids)
  if state.peers[peer] then add(state.peers[peer], name, pids) end
end

function casts.leave(state, peer, name, pids)
  if state.peers[peer] then remove(state.peers[peer], name, pids) end
end

-- --- the process: members --------------------------------------------------------------------------------------

-- state.watched: pid -> its monitor, and how often it is in each of its groups.  state.refs: monitor -> pid.

local function join(state, name, pid)
  local watched = state.watched[pid]
  if not watched then
    watched = {ref = monitor(pid), groups = {}}
    state.watched[pid], state.refs[watched.ref] = watched, pid
  end
  watched.groups[name] = (watched.groups[name] or 0) + 1
end

local function leave(state, name, pid)
  local watched = state.watched[pid]
  local times = watched.groups[name] - 1
  watched.groups[name] = times > 0 and times or nil
  if next(watched.groups) ~= nil then return end
  demonitor(watched.ref, true)
  state.refs[watched.ref], state.watched[pid] = nil, nil
end

local function leave_all(state, pid, groups)
  for name, times in pairs(groups) do
    local gone = {}
    for i = 1, times do gone[i] = pid end
    remove(state.own, name, gone)
    tell(state, "leave", self(), name, gone)
  end
end

local calls = {}

function calls.join(state, name, pids)
  for _, pid in ipairs(pids) do join(state, name, pid) end
  add(state.own, name, pids)
  tell(state, "join", self(), name, pids)
  return true
end

function calls.leave(state, name, pids)
  local removed = remove(state.own, name, pids)
  for _, pid in ipairs(removed) do leave(state, name, pid) end
  if #removed > 0 then tell(state, "leave", self(), name, removed) end
  return #removed > 0
end

function calls.local_members(state, name)
  return list(state.own[name])
end

function calls.members(state, name)
  local all = list(state.own[name])
  for _, groups in pairs(state.peers) do
    local theirs = groups and list(groups[name]) or {}
    table.move(theirs, 1, #theirs, #all + 1, all)
  end
  return all
end

function calls.which_groups(state)
  local seen, names = {}, {}
  local function collect(groups)
    for name in pairs(groups) do
      if not seen[name] then table.insert(names, name) end
      seen[name] = true
    end
  end
  collect(state.own)
  for _, groups in pairs(state.peers) do collect(groups) end
  table.sort(names)
  return names
end

-- --- the server ------------------------------------------------------------------------------------------------

-- The process outlives the one that started it, so its group leader is the console.
function group.init()
  local console = whereis("console")
  if console then group_leader(console) end
  node.monitor(true)
  local state = {own = {}, peers = {}, watched = {}, refs = {}, open = {}}
  for _, name in ipairs(node.list()) do
    local peer = server.whereis({NAME, name})
    if peer and meet(state, peer) then discover(peer) end
  end
  return state
end

local needs_all = {members = true, which_groups = true}

local function has_all(state)
  for _, groups in pairs(state.peers) do
    if not groups then return false end
  end
  return true
end

local function answer(state, request)
  return calls[request[1]](state, request[2], request[3])
end

local function answer_open(state)
  if #state.open == 0 or not has_all(state) then return end
  for _, open in ipairs(state.open) do server.reply(open.from, answer(state, open.request)) end
  state.open = {}
end

function group.handle_call(state, request, from)
  if not needs_all[request[1]] or has_all(state) then return "reply", answer(state, request) end
  table.insert(state.open, {from = from, request = request})
  return "noreply"
end

function group.handle_cast(state, request)
  local act = casts[request[1]]
  if act then act(state, request[2], request[3], request[4]) end
  answer_open(state)
end

local infos = {}

function infos.nodeup(_, name)
  discover({NAME, name})
end

function infos.silent(state, peer)
  if state.peers[peer] == false then state.peers[peer] = {} end
end

function infos.DOWN(state, ref)
  local pid = state.refs[ref]
  state.refs[ref] = nil
  local watched = state.watched[pid]
  if watched then
    state.watched[pid] = nil
    leave_all(state, pid, watched.groups)
  elseif pid then
    state.peers[pid] = nil
  end
end

function group.handle_info(state, kind, what)
  local act = infos[kind]
  if act then act(state, what) end
  answer_open(state)
end

-- --- what others call ------------------------------------------------------------------------------------------

-- The process of this node; it is started if it does not run.  When two start it at once, both get the same pid.
local function process()
  local pid = whereis(NAME)
  if pid then return pid end
  local started, reason = server.start("group", {name = NAME})
  if started then return started end
  if type(reason) == "table" and reason[1] == "already_started" then return reason[2] end
  error("group: " .. inspect(reason), 0)
end

local function ask(...)
  return server.call(process(), {...}, math.huge)
end

local function check_name(name)
  if type(name) ~= "string" then error("group: a name expected, not " .. inspect(name), 3) end
  return name
end

-- Returns a pid, or a list of them, as a list.
local function check_pids(pids)
  local list = type(pids) == "table" and pids or {pids}
  for _, pid in ipairs(list) do
    if type(pid) ~= "userdata" or not pcall(alive, pid) then
      error("group: a pid of this node expected, not " .. inspect(pid), 3)
    end
  end
  if #list == 0 then error("group: a pid expected", 3) end
  return list
end

--- group.join(name, [pids])
-- Makes the caller, a process of this node, or each of a list of those a member of a group.
function group.join(name, pids)
  return ask("join", check_name(name), check_pids(pids or self()))
end

--- group.leave(name, [pids])
-- Removes one membership of each process, and returns false when there was none.
function group.leave(name, pids)
  return ask("leave", check_name(name), check_pids(pids or self()))
end

--- group.members(name)
-- Returns a list of all members of a group, those of this node first.
-- A process is in it as often as it has joined.
function group.members(name)
  return ask("members", check_name(name))
end

--- group.local_members(name)
-- Returns a list of the members of a group on this node.
function group.local_members(name)
  return ask("local_members", check_name(name))
end

--- group.which_groups()
-- Returns a sorted list of the names of the groups that have members.
function group.which_groups()
  return ask("which_groups")
end

--- group.send(name, ...)
-- Sends a message to all members of a group, and returns their number.
function group.send(name, ...)
  local members = group.members(name)
  send_all(members, ...)
  return #members
end

return group
