-- supervisor: a process that keeps others running.
--
--   local supervisor = require("supervisor")
--   supervisor.start_link({
--     strategy = "one_for_one",
--     children = {
--       {id = "counter", start = {"server", "start_link", "counter", {name = "counter"}}},
--       {id = "ticker", start = function() return spawn_link("ticker", "start") end, restart = "transient"},
--     },
--   }, {name = "top"})
--
-- A supervisor's specification: strategy, one of "one_for_one" (the default), "rest_for_one", "one_for_all";
-- max_restarts (3) in max_seconds (5): one restart more in that time ends the supervisor and all children; children,
-- in the order of their start.
--
-- A child's specification:
--   id         any value that is equal to itself
--   start      {module, function, arguments…} or a function, or {function, arguments…}: the supervisor calls it, and
--              it returns the pid; or nil and the reason
--   restart    when the child is started again: "permanent" (the default): always, "transient": unless it ended
--              normally, "temporary": never
--   shutdown   milliseconds (5000) from the exit signal "shutdown" to "kill", math.huge for children that are
--              supervisors; or "kill", to send that at once
--
-- The rules are those of Erlang's supervisor.

local server = require("server")

local supervisor = {}

local MAX_RESTARTS <const>, MAX_SECONDS <const>, SHUTDOWN <const> = 3, 5, 5000
local SECOND <const> = 1000000000

-- --- specifications --------------------------------------------------------------------------------------------

local strategies = {one_for_one = true, rest_for_one = true, one_for_all = true}
local restarts = {permanent = true, transient = true, temporary = true}

local function check(ok, what, value)
  if not ok then error(("supervisor: %s: %s"):format(what, inspect(value)), 0) end
end

local function is_start(start)
  if type(start) == "function" then return true end
  if type(start) ~= "table" then return false end
  return type(start[1]) == "function" or (type(start[1]) == "string" and type(start[2]) == "string")
end

-- A child: its specification with all defaults, and its pid while it runs.
local function new_child(spec)
  check(type(spec) == "table", "a child's specification is a table", spec)
  local child = {
    id = spec.id, start = spec.start, restart = spec.restart or "permanent", shutdown = spec.shutdown or SHUTDOWN,
  }
  check(child.id ~= nil, "a child has no id", spec)
  check(is_start(child.start), "a child's start is a function, or {module, function, …}", spec)
  check(restarts[child.restart], "no such restart", child.restart)
  local ms = math.type(child.shutdown)
  check(child.shutdown == "kill" or ms and child.shutdown >= 0, "no such shutdown", child.shutdown)
  return child
end

local function find(state, id)
  for i, child in ipairs(state.children) do
    if child.id == id then return child, i end
  end
end

local function find_pid(state, pid)
  for i, child in ipairs(state.children) do
    if child.pid == pid then return child, i end
  end
end

local function new_state(spec)
  check(type(spec) == "table", "a specification is a table", spec)
  local strategy = spec.strategy or "one_for_one"
  local most, seconds = spec.max_restarts or MAX_RESTARTS, spec.max_seconds or MAX_SECONDS
  check(strategies[strategy], "no such strategy", strategy)
  check(math.type(most) and most >= 0, "no such max_restarts", most)
  check(math.type(seconds) and seconds > 0, "no such max_seconds", seconds)
  local state = {
    strategy = strategy,
    max_restarts = most,
    window = seconds * SECOND,
    children = {},
    restarts = {}, -- their times, the latest last
  }
  for _, child_spec in ipairs(spec.children or {}) do
    local child = new_child(child_spec)
    check(not find(state, child.id), "two children have the id", child.id)
    table.insert(state.children, child)
  end
  return state
end

-- --- starting and stopping one child ---------------------------------------------------------------------------

local function call_start(start)
  if type(start) == "function" then return start() end
  if type(start[1]) == "function" then return start[1](table.unpack(start, 2)) end
  return require(start[1])[start[2]](table.unpack(start, 3))
end

-- Returns true; or nil and the reason.
local function start_child(child)
  local ok, pid, reason = pcall(call_start, child.start)
  if not ok then return nil, {"error", server.text(pid)} end
  if type(pid) ~= "userdata" then return nil, reason or {"bad_return", pid} end
  link(pid)
  child.pid, child.restarting = pid, nil
  return true
end

-- The child may have ended by itself: then its EXIT is in the mailbox, and is removed.
local function stop_child(child)
  local pid, ref = child.pid, monitor(child.pid)
  child.pid = nil
  unlink(pid)
  receive_match({"EXIT", pid}, 0)
  if child.shutdown ~= "kill" then
    exit(pid, "shutdown")
    if receive_match({"DOWN", ref}, child.shutdown) then return end
  end
  exit(pid, "kill")
  receive_match({"DOWN", ref})
end

-- Stops the children from index first on, the last one first, and removes temporary ones.
local function stop_from(state, first)
  for i = #state.children, first, -1 do
    local child = state.children[i]
    if child.pid then stop_child(child) end
    if child.restart == "temporary" then table.remove(state.children, i) end
  end
end

-- Starts the children from index first on that do not run.  Returns true; or nil, the child that could not be started,
-- and the reason.
local function start_from(state, first)
  for i = first, #state.children do
    local child = state.children[i]
    if not child.pid then
      local ok, reason = start_child(child)
      if not ok then return nil, child, reason end
    end
  end
  return true
end

-- --- restarting ------------------------------------------------------------------------------------------------

-- Records a restart; returns false when there were too many within the window.
local function may_restart(state)
  local now, recent = monotonic(), {}
  for _, at in ipairs(state.restarts) do
    if now - at <= state.window then table.insert(recent, at) end
  end
  table.insert(recent, now)
  state.restarts = recent
  return #recent <= state.max_restarts
end

local restart = {
  one_for_one = function(_, child) return start_child(child), child end,
  rest_for_one = function(state, _, i)
    stop_from(state, i + 1)
    return start_from(state, i)
  end,
  one_for_all = function(state)
    stop_from(state, 1)
    return start_from(state, 1)
  end,
}

-- Restarts a child.  When that fails, the supervisor tries again, which counts as another restart.
local function revive(state, child, i)
  if not may_restart(state) then return "stop", "shutdown" end
  child.restarting = nil
  local ok, failed = restart[state.strategy](state, child, i)
  if ok then return end
  failed.restarting = true
  server.cast(self(), {"revive", failed.id})
end

local function ended_well(reason)
  return reason == "normal" or reason == "shutdown" or (type(reason) == "table" and reason[1] == "shutdown")
end

-- The reason "noproc" means that the child ended before it was linked: a transient child has then done its work.
local function child_ended(state, child, i, reason)
  child.pid = nil
  if child.restart == "permanent" or (child.restart == "transient" and reason ~= "noproc" and not ended_well(reason)) then
    return revive(state, child, i)
  end
  if child.restart == "temporary" then table.remove(state.children, i) end
end

-- --- the server ------------------------------------------------------------------------------------------------

function supervisor.init(spec)
  trap_exit(true)
  local state = new_state(spec)
  local ok, child, reason = start_from(state, 1)
  if ok then return state end
  stop_from(state, 1)
  return nil, {"shutdown", {"failed_to_start_child", child.id, reason}}
end

local requests = {}

function requests.which_children(state)
  local list = {}
  for i, child in ipairs(state.children) do
    list[i] = {id = child.id, pid = child.pid, restart = child.restart, restarting = child.restarting}
  end
  return {list}
end

function requests.start_child(state, spec)
  local child = new_child(spec)
  local other = find(state, child.id)
  if other then return {nil, other.pid and {"already_started", other.pid} or "already_present"} end
  local ok, reason = start_child(child)
  if not ok then return {nil, reason} end
  table.insert(state.children, child)
  return {child.pid}
end

function requests.terminate_child(state, id)
  local child, i = find(state, id)
  if not child then return {nil, "not_found"} end
  child.restarting = nil
  if child.pid then stop_child(child) end
  if child.restart == "temporary" then table.remove(state.children, i) end
  return {true}
end

local function idle(state, id)
  local child, i = find(state, id)
  if not child then return nil, "not_found" end
  if child.pid then return nil, "running" end
  if child.restarting then return nil, "restarting" end
  return child, i
end

function requests.restart_child(state, id)
  local child, reason = idle(state, id)
  if not child then return {nil, reason} end
  local ok, why = start_child(child)
  return {ok and child.pid or nil, why}
end

function requests.delete_child(state, id)
  local child, i = idle(state, id)
  if not child then return {nil, i} end
  table.remove(state.children, i)
  return {true}
end

-- Returns a bad argument as an error to the caller, so that it does not end the supervisor.
function supervisor.handle_call(state, request)
  local ok, answer = pcall(requests[request[1]], state, request[2])
  return "reply", ok and answer or {error = answer}
end

function supervisor.handle_cast(state, request)
  local child, i = find(state, request[2])
  if request[1] == "revive" and child and child.restarting then return revive(state, child, i) end
end

function supervisor.handle_info(state, kind, pid, reason)
  if kind ~= "EXIT" then return end
  local child, i = find_pid(state, pid)
  if child then return child_ended(state, child, i, reason) end
end

function supervisor.terminate(state)
  stop_from(state, 1)
end

-- --- what others call ------------------------------------------------------------------------------------------

--- supervisor.start_link(spec, [options])
-- Starts a supervisor, which is linked to the caller, and its children, and returns its pid, or nil and the reason.
-- The options are those of server.start.  The reason is {"shutdown", {"failed_to_start_child", id, reason}} when a
-- child cannot be started.
function supervisor.start_link(spec, options)
  new_state(spec) -- raises an error of the caller when the specification is wrong
  return server.start_link("supervisor", options, spec)
end

--- supervisor.start(spec, [options])
-- Starts a supervisor and its children, and returns as supervisor.start_link does.
function supervisor.start(spec, options)
  new_state(spec)
  return server.start("supervisor", options, spec)
end

-- Waits without a limit, as the supervisor may have to wait for the end of a child.
local function ask(sup, what, value)
  local answer = server.call(sup, {what, value}, math.huge)
  if answer.error then error(answer.error, 0) end
  if answer[1] == nil then return nil, answer[2] end
  return answer[1]
end


--- supervisor.which_children(sup)
-- Returns a list of the children in the order of their start.
-- Each is {id=, pid=, restart=, restarting=}; pid is nil while the child does not run.
function supervisor.which_children(sup) return ask(sup, "which_children") end

--- supervisor.start_child(sup, child)
-- Adds a child, and returns its pid, or nil and the reason.
-- Among the reasons are {"already_started", pid} and "already_present".
function supervisor.start_child(sup, spec) return ask(sup, "start_child", spec) end

--- supervisor.terminate_child(sup, id)
-- Stops a child, and returns true, or nil and the reason.
-- The supervisor keeps its specification, unless it is temporary.  The reason is "not_found".
function supervisor.terminate_child(sup, id) return ask(sup, "terminate_child", id) end

--- supervisor.restart_child(sup, id)
-- Starts a child that does not run, and returns its pid, or nil and the reason.
-- Among the reasons are "not_found", "running" and "restarting".
function supervisor.restart_child(sup, id) return ask(sup, "restart_child", id) end

--- supervisor.delete_child(sup, id)
-- Removes the specification of a child that does not run, and returns true, or nil and the reason.
-- The reason is "not_found", "running" or "restarting".
function supervisor.delete_child(sup, id) return ask(sup, "delete_child", id) end

--- supervisor.stop(sup, [reason], [ms])
-- Ends the children, the last one first, and then the supervisor.
function supervisor.stop(sup, reason, timeout) return server.stop(sup, reason or "shutdown", timeout) end

return supervisor
