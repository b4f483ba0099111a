-- server: a process that keeps a state and answers requests, one at a time.
--
--   local counter = {}
--   function counter.init(first) return {n = first} end
--   function counter.handle_call(state, request)
--     state.n = state.n + request
--     return "reply", state.n
--   end
--
--   local pid = assert(server.start(counter, {name = "counter"}, 10))
--   server.call("counter", 5)   --> 15
--
-- The callbacks are a module's name, or a table, of which the server gets a copy.  Each callback is optional:
--   init(...)                            returns the state; or nil and the reason not to start
--   handle_call(state, request, from)    returns "reply", value [, state]  or  "noreply" [, state]
--   handle_cast(state, request)          returns nothing, or "noreply" [, state]
--   handle_info(state, ...)              gets the values of any other message; returns as handle_cast does
--   terminate(state, reason)             runs before the process ends
-- Each of the handlers may return "stop", reason [, reply].  A handler that returns no state keeps the old one, so
-- it may change a table in place.
--
-- A line that begins with three dashes says how a function is called, and the line below it what the function does:
-- node-lua(7) says the same.

local server = {}

local PATIENCE <const> = 5000

-- As locals they cost no look-up; receive and receive_match stay global, as node-shell replaces them.
local demonitor <const>, error <const>, monitor <const>, pcall <const>, self <const>, send <const>, type <const> =
  demonitor, error, monitor, pcall, self, send, type
local mathtype <const> = math.type

-- --- the caller's side -----------------------------------------------------------------------------------------

local function check(dest, level)
  local kind = type(dest)
  if kind == "userdata" or kind == "string" then return end
  if kind == "table" and type(dest[1]) == "string" and type(dest[2]) == "string" then return end
  error("server: a pid, a name, or {name, node} expected, not " .. inspect(dest), level + 1)
end

-- Looks a name up on another node, by a process that runs there.
local function find_there(name, there)
  local ok, problem, ref = pcall(node.spawn_monitor, there, function() exit({"found", whereis(name)}) end)
  if not ok then return nil, problem end
  local _, _, _, reason = receive_match({"DOWN", ref})
  if type(reason) == "table" and reason[1] == "found" then return reason[2] end
  return nil, reason
end

--- server.whereis(server)
-- Returns the pid of a server, or nil, and the reason when its node cannot be asked.
-- A name is looked up on this node first, then in the cluster.
function server.whereis(dest)
  check(dest, 2)
  if type(dest) == "userdata" then return dest end
  if type(dest) == "string" then return whereis(dest) or global.whereis_name(dest) end
  if dest[2] == node.self() then return whereis(dest[1]) end
  return find_there(dest[1], dest[2])
end

local function find(dest)
  if type(dest) == "userdata" and dest ~= self() then return dest end
  check(dest, 3)
  local pid, problem = server.whereis(dest)
  if problem then error(("server %s: %s"):format(inspect(dest), problem), 3) end
  if not pid then error("server: there is no server " .. inspect(dest), 3) end
  if pid == self() then error("server: one that waits for itself waits for ever", 3) end
  return pid
end

local function check_ms(ms)
  if mathtype(ms) and ms >= 0 then return ms end
  error("server: milliseconds expected, 0 or more, not " .. inspect(ms), 3)
end

-- An error value as text, as the report of a process that it ends has it: the words of its __tostring, or what inspect
-- makes of it; not for callers of this module.
function server.text(problem)
  local meta = type(problem) == "table" and getmetatable(problem)
  if type(problem) == "string" or (type(meta) == "table" and meta.__tostring) then return tostring(problem) end
  return inspect(problem)
end

-- The reason for which a process ended, as text.
local function words(reason)
  if type(reason) == "table" and reason[1] == "error" then return server.text(reason[2]) end
  return type(reason) == "string" and reason or inspect(reason)
end

--- server.call(server, request, [ms])
-- Sends a request to a server, and returns the reply.
-- Errors are: there is no such server; it ends before the reply; no reply has come after ms (5000) milliseconds.
-- The reference of the monitor is an alias, to which the reply is sent: it takes one message, and none once the call
-- has failed, so a late reply never reaches the mailbox.
function server.call(dest, request, timeout)
  timeout = check_ms(timeout or PATIENCE)
  local pid = find(dest)
  local ref = monitor(pid, true)
  local sent, problem = pcall(send, pid, "$call", ref, self(), request)
  if not sent then
    demonitor(ref, true)
    error(problem, 0)
  end
  local kind, reply, _, reason = receive_match(ref, timeout)
  if kind == ref then return reply end
  if kind == "DOWN" then error(("server %s: the call failed: %s"):format(inspect(dest), words(reason)), 2) end
  if not demonitor(ref) then receive_match(ref, 0) end -- a reply, or a DOWN, that came since
  error(("server %s: no reply within %s ms"):format(inspect(dest), timeout), 2)
end

--- server.cast(server, request)
-- Sends a request that gets no reply.
-- As with any message, the caller is not told whether the request arrived.
function server.cast(dest, request)
  check(dest, 2)
  if type(dest) == "string" then dest = server.whereis(dest) end
  if dest then send(dest, "$cast", request) end
end

--- server.reply(from, value)
-- Replies to a call for which handle_call returned "noreply".
-- Any process may do so.
function server.reply(from, value)
  send(from.to, from.to, value)
end

--- server.stop(server, [reason], [ms])
-- Asks a server to end, and waits until it has ended.
-- An end for another reason than the one given is an error.
function server.stop(dest, reason, timeout)
  timeout = check_ms(timeout or math.huge)
  local pid = find(dest)
  if reason == nil then reason = "normal" end
  local ref = monitor(pid)
  send(pid, "$stop", reason)
  local kind, _, _, ended = receive_match({"DOWN", ref}, timeout)
  if not kind then
    demonitor(ref, true)
    error(("server %s: still there after %s ms"):format(inspect(dest), timeout), 2)
  end
  if inspect(ended) ~= inspect(reason) then
    error(("server %s: ended: %s"):format(inspect(dest), words(ended)), 2)
  end
end

-- --- the server's side -----------------------------------------------------------------------------------------

local function finish(s, reason)
  if s.callbacks.terminate then s.callbacks.terminate(s.state, reason) end
  exit(reason)
end

-- Calls terminate, then ends the server with an error.
local function fail(s, problem)
  if s.callbacks.terminate then s.callbacks.terminate(s.state, {"error", server.text(problem)}) end
  error(problem, 0)
end

-- Calls f.  Its error is caught only where there is a terminate to call: an error that is not caught keeps its whole
-- traceback.
local function guard(s, f, ...)
  if not s.callbacks.terminate then return f(...) end
  local function pass(ok, ...)
    if not ok then fail(s, (...)) end
    return ...
  end
  return pass(pcall(f, ...))
end

local function keep(s, state)
  if state ~= nil then s.state = state end
end

-- Carries out what a handler has returned.
local function settle(s, name, from, verdict, value, third)
  if verdict == "reply" and from then
    server.reply(from, value)
    keep(s, third)
  elseif verdict == "noreply" or (verdict == nil and not from) then
    keep(s, value)
  elseif verdict == "stop" then
    if from and third ~= nil then server.reply(from, third) end
    finish(s, value)
  else
    fail(s, ("server: %s returned %s"):format(name, inspect(verdict)))
  end
end

local function handle(s, name, from, ...)
  local handler = s.callbacks[name]
  if handler then return settle(s, name, from, guard(s, handler, s.state, ...)) end
  if name ~= "handle_info" then fail(s, ("server: %s came, and there is no %s"):format(inspect((...)), name)) end
end

local receives = {
  ["$call"] = function(s, _, ref, caller, request)
    local from = {to = ref, caller = caller}
    handle(s, "handle_call", from, request, from)
  end,
  ["$cast"] = function(s, _, request) handle(s, "handle_cast", nil, request) end,
  ["$stop"] = function(s, _, reason) finish(s, reason) end,
  EXIT = function(s, kind, pid, reason)
    if pid == s.parent then finish(s, reason) end
    handle(s, "handle_info", nil, kind, pid, reason)
  end,
}

local function dispatch(s, kind, ...)
  local act = receives[kind]
  if act then return act(s, kind, ...) end
  handle(s, "handle_info", nil, kind, ...)
end

-- Takes the names of the options; returns the pid that has one of them already, or nil.
local function take_names(options)
  if options.name and not pcall(register, options.name, self()) then
    return whereis(options.name) or error(("server: the name %s cannot be taken"):format(inspect(options.name)), 0)
  end
  if options.global and not global.register_name(options.global, self()) then
    return global.whereis_name(options.global)
      or error(("server: the global name %s cannot be taken"):format(inspect(options.global)), 0)
  end
end

-- The body of a server process; not for callers of this module.
function server.enter(starter, callbacks, options, args)
  if options.link then link(starter) end
  local holder = take_names(options)
  if holder then return send(starter, "$started", self(), holder) end
  if type(callbacks) == "string" then callbacks = require(callbacks) end
  local s = {callbacks = callbacks, parent = options.link and starter or nil, state = {}}
  if callbacks.init then
    local state, why = callbacks.init(table.unpack(args, 1, args.n))
    if state == nil and why ~= nil then exit(why) end
    s.state = state
  end
  send(starter, "$started", self())
  while true do dispatch(s, receive()) end
end

-- --- starting --------------------------------------------------------------------------------------------------

-- Removes the link and the messages of a server that did not start.
local function part(pid, ref)
  demonitor(ref, true)
  unlink(pid)
  receive_match({"EXIT", pid}, 0)
  receive_match({"$started", pid}, 0)
end

-- With a link, the exit signal of a server whose init failed stays: a caller that traps exits gets its message, as
-- from Erlang's gen_server:start_link.
local function await_start(pid, ref, options)
  local timeout = options.timeout
  local kind, _, third, reason = receive_match(function(kind, who)
    return (kind == "$started" and who == pid) or (kind == "DOWN" and who == ref)
  end, timeout)
  if kind == "$started" and third == nil then
    demonitor(ref, true)
    return pid
  end
  if kind == "DOWN" and options.link then return nil, reason end
  if not kind then
    exit(pid, "kill")
    receive_match({"DOWN", ref})
  end
  part(pid, ref)
  if not kind then return nil, "timeout" end
  return nil, kind == "DOWN" and reason or {"already_started", third}
end

-- Is called in tail position, so that level 2 of its errors is the caller of this module.
local function start(callbacks, options, ...)
  local kind = type(callbacks)
  if kind ~= "table" and kind ~= "string" then
    error("server: a table of callbacks or a module's name expected, not " .. inspect(callbacks), 2)
  end
  check_ms(options.timeout or math.huge)
  local starter, args = self(), table.pack(...)
  -- One closure, so that callbacks that share a variable here share one copy of it in the server.
  local function body() return require("server").enter(starter, callbacks, options, args) end
  local ok, pid, ref = pcall(node.spawn_monitor, options.node or node.self(), body)
  if not ok then return nil, pid end
  return await_start(pid, ref, options)
end

local function with_link(options, wanted)
  local all = {}
  for key, value in pairs(options or {}) do all[key] = value end
  all.link = wanted
  return all
end

--- server.start(callbacks, [options], [...])
-- Starts a server, and returns its pid once init has returned, or nil and the reason.
-- The arguments after the options go to init.  Options: name (on this node), global (name in the cluster), node (the
-- node to run on; this one), timeout (milliseconds that init may take; no limit).  The reason is
-- {"already_started", pid} when a name is taken.
function server.start(callbacks, options, ...)
  return start(callbacks, with_link(options, false), ...)
end

--- server.start_link(callbacks, [options], [...])
-- Starts a server that is linked to the caller, and returns as server.start does.
function server.start_link(callbacks, options, ...)
  return start(callbacks, with_link(options, true), ...)
end

return server
