-- scale: the code that runs on the nodes of tests/scale/run, which calls these functions by node-spawn -m, so their
-- arguments are strings.  Times are milliseconds of the monotonic clock, which all processes of the host share.

local scale = {}

local function now() return monotonic() // 1000000 end

-- Waits for a moment that has been agreed on, so that many nodes do the same at the same time.
local function wait_until(ms)
  local left = tonumber(ms) - now()
  if left > 0 then sleep(left) end
end

-- --- what a node sees of the others ----------------------------------------------------------------------------

-- Writes a line "down NAME MS" or "up NAME MS" to a file in the directory for each node that goes or comes; those that
-- come together are flushed together, so that this costs less than what it measures.
function scale.watch(directory)
  register("watch", self())
  node.monitor(true)
  local file <close> = assert(io.open(directory .. "/" .. node.self(), "a"))
  while true do
    local what, name = receive(0)
    if not what then
      file:flush()
      what, name = receive()
    end
    if what == "nodedown" or what == "nodeup" then
      file:write(what:sub(5), " ", name, " ", now(), "\n")
    elseif what == "end" then
      return
    end
  end
end

-- --- names -----------------------------------------------------------------------------------------------------

-- Registers a name for the caller, again and again while that fails, for half a minute; returns as register_name does,
-- and how often it has failed.
local function persist(name)
  local failed, till = 0, now() + 30000
  while true do
    local good, yes = pcall(global.register_name, name, self())
    if good or now() >= till then return good and yes, failed end
    failed = failed + 1
    sleep(math.random(100, 300))
  end
end

-- A holder of names registers them one by one, and lives until it gets "end".
local function hold(boss, first, last, prefix)
  local failed = 0
  for i = first, last do
    if not persist(prefix .. node.self() .. "." .. i) then failed = failed + 1 end
  end
  send(boss, "filled", failed)
  receive_match({"end"})
end

-- Registers so many names by so many processes; prints how many it could not.
function scale.fill(count, holders, prefix)
  count, holders = tonumber(count), math.min(tonumber(holders), tonumber(count))
  local failed, each = 0, count // holders
  for h = 1, holders do
    local pid = spawn(hold, self(), (h - 1) * each + 1, h == holders and count or h * each, prefix)
    if h <= 1000 then register("holder" .. h, pid) end
  end
  for _ = 1, holders do
    local _, n = receive_match({"filled"})
    failed = failed + n
  end
  print("failed", failed)
end

-- Ends the processes of this node whose local names begin so: the holders, or the winners of a race.
function scale.release(prefix)
  for _, name in ipairs(registered()) do
    if name:find(prefix, 1, true) == 1 then pcall(send, name, "end") end
  end
end

local function racer(boss, name, at)
  wait_until(at)
  local won, failed = persist(name)
  send(boss, "raced", name, won, won and global.token(name), failed)
  if won then
    register("won." .. name, self())
    receive_match({"end"})
  end
end

-- Races for the names race1, race2, … with so many processes for each, from one moment on.  Prints "won NAME TOKEN",
-- "tried COUNT", and "failed COUNT", how many attempts were made again; the winners live until scale.release.
function scale.race(names, times, at)
  local tried, again = 0, 0
  for i = 1, tonumber(names) do
    for _ = 1, tonumber(times) do
      spawn(racer, self(), "race" .. i, at)
      tried = tried + 1
    end
  end
  for _ = 1, tried do
    local _, name, won, token, failed = receive_match({"raced"})
    again = again + failed
    if won then print("won", name, token) end
  end
  print("tried", tried)
  print("failed", again)
end

-- Registers a name again and again until a moment.  Prints "gap MS", the longest time between two registrations that
-- have succeeded; "slowest MS", how long the longest attempt took that has failed; "failed COUNT" and "made COUNT"; and
-- "error TEXT" for each kind of error.
function scale.try(prefix, till)
  local gap, slowest, failed, made, last = 0, 0, 0, 0, now()
  local errors, name = {}, prefix .. node.self()
  till = tonumber(till)
  while now() < till do
    local began = now()
    local good, yes = pcall(global.register_name, name .. made, self())
    local ended = now()
    if good and yes then
      made, gap, last = made + 1, math.max(gap, ended - last), ended
      pcall(global.unregister_name, name .. made - 1)
    else
      failed, slowest = failed + 1, math.max(slowest, ended - began)
      errors[tostring(yes):gsub("^.-%d: ", "")] = true
    end
    sleep(50)
  end
  print("gap", math.max(gap, till - last))
  print("slowest", slowest)
  print("failed", failed)
  print("made", made)
  for text in pairs(errors) do print("error", text) end
end

-- --- messages on links -----------------------------------------------------------------------------------------

-- Takes messages of the processes of scale.stream; answers to "sum" how many came, and how many were out of order.
function scale.sink()
  register("sink", self())
  local last, all, bad = {}, 0, 0
  while true do
    local what, from, i = receive()
    if what == "item" then
      if i ~= (last[from] or 0) + 1 then bad = bad + 1 end
      last[from], all = i, all + 1
    elseif what == "sum" then
      send(from, "sum", all, bad)
    elseif what == "end" then
      return
    end
  end
end

-- Sends messages to the sink of another node until a moment; prints "sent COUNT CAME WRONG".
function scale.stream(there, till)
  local n, me = 0, self()
  till = tonumber(till)
  while now() < till do
    n = n + 1
    send({"sink", there}, "item", me, n)
    sleep(20)
  end
  send({"sink", there}, "sum", me)
  local _, came, wrong = receive_match({"sum"}, 20000)
  print("sent", n, came or 0, wrong or 0)
end

return scale
