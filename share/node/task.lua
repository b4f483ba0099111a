-- task: work on the side, and what came of it.
--
--   local task = require("task")
--   local t = task.async(function(n) return n * n end, 7)
--   task.await(t)                                          --> 49
--   task.map({"a", "b", "c"}, string.upper)                --> {"A", "B", "C"}
--   task.on_nodes(node.list(), function() return sh("uptime") end)
--
-- A task is a process of its own, here or on another node: what it is given and what it returns is copied.  It does
-- not outlive the process that asked for it.  As in Elixir the two are linked, so that a task which fails takes along
-- who asked for it; what became of an async_nolink is told by await alone.

local task = {}

local PATIENCE <const>, WIDTH <const> = 5000, 16

-- Runs beside a task: ends it when its owner ends.
local function watch(owner, pid)
  local watched = monitor(owner)
  monitor(pid)
  local _, ref = receive_match({"DOWN"})
  if ref == watched then exit(pid, "kill") end
end

-- In the task: the results are the reason it ends for, so they come at most once, and none comes after a demonitor.
local function work(owner, linked, f, ...)
  spawn(watch, owner, self())
  if linked then link(owner) end
  local results = table.pack(f(...))
  unlink(owner)
  exit({"returned", results})
end

local function words(reason)
  if type(reason) == "table" and reason[1] == "error" then return tostring(reason[2]) end
  return type(reason) == "string" and reason or inspect(reason)
end

-- true and the packed results; or false and the reason.
local function outcome(reason)
  if type(reason) == "table" and reason[1] == "returned" then return true, reason[2] end
  return false, reason
end

local function cancel(t)
  demonitor(t.ref, true)
  unlink(t.pid)
  exit(t.pid, "kill")
  receive_match({"EXIT", t.pid}, 0)
end

-- A task; or nil and why it cannot be one.
local function start(name, linked, f, ...)
  local ok, pid, ref = pcall(node.spawn_monitor, name, work, self(), linked, f, ...)
  if not ok then return nil, pid end
  return {pid = pid, ref = ref, owner = self()}
end

-- Called in tail position: its caller's caller is to blame.
local function check(t, problem)
  return t or error("task: " .. problem, 2)
end

-- --- one task --------------------------------------------------------------------------------------------------

-- Starts f(...) as a task.
function task.async(f, ...) return check(start(node.self(), true, f, ...)) end

-- The same on a node.
function task.async_on(name, f, ...) return check(start(name, true, f, ...)) end

-- A task whose failure is an error in await, and nothing else.
function task.async_nolink(f, ...) return check(start(node.self(), false, f, ...)) end

-- Waits for the task's results, timeout milliseconds (5000) at most.  A task that failed is an error; so is one that
-- takes longer, which is ended.  Only the process that started a task can wait for it, and once.
function task.await(t, timeout)
  if t.owner ~= self() then error("task: another process started it", 2) end
  if t.over then error("task: it was waited for already", 2) end
  timeout = timeout or PATIENCE
  local kind, _, _, reason = receive_match({"DOWN", t.ref}, timeout)
  t.over = true
  if not kind then
    cancel(t)
    error(("task %s: not done within %s ms"):format(inspect(t.pid), timeout), 2)
  end
  local ok, results = outcome(reason)
  if not ok then error(("task %s: %s"):format(inspect(t.pid), words(results)), 2) end
  return table.unpack(results, 1, results.n)
end

-- Ends a task that nobody will wait for.
function task.cancel(t)
  if not t.over then cancel(t) end
  t.over = true
end

-- --- many tasks ------------------------------------------------------------------------------------------------

-- The node that has the least to do for us.
local function idlest(nodes, busy)
  local best = nodes[1]
  for _, name in ipairs(nodes) do
    if (busy[name] or 0) < (busy[best] or 0) then best = name end
  end
  return best
end

-- The next of the running tasks that is over, and the reason; without one the oldest, when its time has run out.
local function next_over(running, oldest, timeout)
  local left = math.max(0, (oldest.started - monotonic()) / 1e6 + timeout)
  local kind, ref, _, reason = receive_match(function(kind, ref) return kind == "DOWN" and running[ref] end, left)
  if kind then return running[ref], reason end
  cancel(oldest)
  return oldest, "timeout"
end

-- Keeps up to width tasks running: begin(i) starts the i-th of n; done(i, ok, results or reason) takes what came of
-- it, and may return true to end it all.
local function run(n, width, timeout, begin, done)
  local tasks, running, count = {}, {}, 0 -- by number, and by reference
  local i, oldest, stop = 1, 1, false
  local function start_next()
    local t, problem = begin(i)
    if t then
      t.index, t.started = i, monotonic()
      tasks[i], running[t.ref], count = t, t, count + 1
    else
      stop = done(i, false, problem)
    end
    i = i + 1
  end
  local function end_next()
    while not tasks[oldest] do oldest = oldest + 1 end
    local t, reason = next_over(running, tasks[oldest], timeout)
    tasks[t.index], running[t.ref], count = nil, nil, count - 1
    stop = done(t.index, outcome(reason))
  end
  while not stop and (i <= n or count > 0) do
    if i <= n and count < width then start_next() else end_next() end
  end
  for _, t in pairs(tasks) do cancel(t) end
end

-- The width and the timeout of options.
local function bounds(options)
  local width, timeout = options.width or WIDTH, options.timeout or math.huge
  if math.type(width) ~= "integer" or width < 1 then error("task: a width of 1 or more expected", 3) end
  if not (math.type(timeout) and timeout >= 0) then error("task: a timeout of 0 or more milliseconds expected", 3) end
  return width, timeout
end

-- The list of f(value, index) for each value of a list, in order; n is its length, as results may be nil.  Options:
-- width, tasks at a time (16); nodes, a list of where (here); timeout of each in milliseconds (none).  The first
-- failure is an error, and ends the others.
function task.map(list, f, options)
  options = options or {}
  local nodes, width, timeout = options.nodes or {node.self()}, bounds(options)
  local results, busy, where, failure = {n = #list}, {}, {}, nil
  if #nodes == 0 then error("task: no nodes to work on", 2) end
  run(#list, width, timeout, function(i)
    where[i] = idlest(nodes, busy)
    busy[where[i]] = (busy[where[i]] or 0) + 1
    return start(where[i], false, f, list[i], i)
  end, function(i, ok, result)
    busy[where[i]] = busy[where[i]] - 1
    if ok then
      results[i] = result[1]
    else
      failure = ("task: [%d]: %s"):format(i, words(result))
    end
    return failure
  end)
  if failure then error(failure, 2) end
  return results
end

-- f() on each of the nodes.  Returns two tables by the node's name: what f returned there, and why it failed there.
-- Options: width, nodes at a time (16); timeout of each in milliseconds (none).
function task.on_nodes(nodes, f, options)
  options = options or {}
  local results, failures, width, timeout = {}, {}, bounds(options)
  run(#nodes, width, timeout, function(i)
    return start(nodes[i], false, f)
  end, function(i, ok, result)
    if ok then results[nodes[i]] = result[1] else failures[nodes[i]] = words(result) end
  end)
  return results, failures
end

return task
