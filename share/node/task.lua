-- task: work that runs beside the caller, and its results.
--
--   local task = require("task")
--   local t = task.async(function(n) return n * n end, 7)
--   task.await(t)                                          --> 49
--   task.map({"a", "b", "c"}, string.upper)                --> {"A", "B", "C"}
--   task.on_nodes(node.list(), function() return sh("uptime") end)
--
-- A task is a process, here or on another node: its arguments and its results are copied.  It ends when its owner, the
-- process that started it, ends.  As in Elixir the two are linked, so that the failure of a task ends its owner, too;
-- the failure of a task of async_nolink is an error of await alone.

local task = {}

local PATIENCE <const>, WIDTH <const> = 5000, 16

-- The body of a process beside each task: ends the task when its owner ends.
local function watch(owner, pid)
  local watched = monitor(owner)
  monitor(pid)
  local _, ref = receive_match({"DOWN"})
  if ref == watched then exit(pid, "kill") end
end

-- The body of a task.  The results are its exit reason, so that they come at most once, and not after a demonitor.
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

-- Returns true and the packed results; or false and the reason.
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

-- Returns a task; or nil and why it cannot be started.
local function start(name, linked, f, ...)
  local ok, pid, ref = pcall(node.spawn_monitor, name, work, self(), linked, f, ...)
  if not ok then return nil, pid end
  return {pid = pid, ref = ref, owner = self()}
end

-- Is called in tail position, so that level 2 of its error is the caller of this module.
local function check(t, problem)
  return t or error("task: " .. problem, 2)
end

-- --- one task --------------------------------------------------------------------------------------------------

--- task.async(f, ...)
-- Starts a task that is linked to the caller, and returns it.
function task.async(f, ...) return check(start(node.self(), true, f, ...)) end

--- task.async_on(node, f, ...)
-- Starts a task on a node, linked to the caller, and returns it.
function task.async_on(name, f, ...) return check(start(name, true, f, ...)) end

--- task.async_nolink(f, ...)
-- Starts a task whose failure is an error of task.await alone, and returns it.
function task.async_nolink(f, ...) return check(start(node.self(), false, f, ...)) end

--- task.await(task, [ms])
-- Waits for a task, and returns its results.
-- A task that failed is an error; so is one that takes longer than ms (5000) milliseconds, which is then ended.  Only
-- the owner can wait for a task, and only once.
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

--- task.cancel(task)
-- Ends a task whose results are not wanted.
function task.cancel(t)
  if not t.over then cancel(t) end
  t.over = true
end

-- --- many tasks ------------------------------------------------------------------------------------------------

-- The node on which the fewest of these tasks run.
local function idlest(nodes, busy)
  local best = nodes[1]
  for _, name in ipairs(nodes) do
    if (busy[name] or 0) < (busy[best] or 0) then best = name end
  end
  return best
end

-- Waits for the end of any of the running tasks; returns that task and the reason.  When the time of the oldest runs
-- out first, ends and returns that one.
local function next_over(running, oldest, timeout)
  local left = math.max(0, (oldest.started - monotonic()) / 1e6 + timeout)
  local kind, ref, _, reason = receive_match(function(kind, ref) return kind == "DOWN" and running[ref] end, left)
  if kind then return running[ref], reason end
  cancel(oldest)
  return oldest, "timeout"
end

-- Keeps up to width tasks running: begin(i) starts the i-th of n; done(i, ok, results or reason) is called at the end
-- of each, and may return true to end all others.
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

--- task.map(list, f, [options])
-- Calls f(value, index) in a task for each value of a list, and returns the list of the results, in order.
-- The field n of that list is its length, as results may be nil.  Options: width, tasks at a time (16); nodes, a list
-- of where they run (this node); timeout of each in milliseconds (no limit).  The first failure is an error, and ends
-- the other tasks.
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

--- task.on_nodes(nodes, f, [options])
-- Calls f() on each of the nodes, and returns two tables by the node's name: of the results, and of the failures.
-- Options: width, nodes at a time (16); timeout of each in milliseconds (no limit).
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
