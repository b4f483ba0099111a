-- ticker: a process that ticks.  It has the global name "ticker".  It sends "tick" to each process that has registered
-- with it whenever it has got no message for an interval.
--
--   node-spawn -d -m ticker.start             every 2 seconds
--   node-spawn -d -m ticker.start -- 300      every 300 ms

local ticker = {}

local NAME <const> = "ticker"
local INTERVAL <const> = 2000

-- The body of the process: a message adds or removes a client; when none comes for an interval, it ticks.
local function generator(interval, clients)
  local what, pid, gone = receive(interval)
  if what == "register" then
    puts("registering " .. inspect(pid))
    monitor(pid)
    table.insert(clients, 1, pid)
  elseif what == "DOWN" then
    for i = #clients, 1, -1 do
      if clients[i] == gone then table.remove(clients, i) end
    end
  elseif what == nil then
    puts("tick")
    for _, client in ipairs(clients) do send(client, "tick") end
  end
  return generator(interval, clients)
end

-- Starts the ticker under its global name, and returns its pid.  A second ticker in the cluster is an error.
function ticker.start(interval)
  local ms = tonumber(interval or INTERVAL)
  if not ms or ms < 1 then error("ticker: an interval in milliseconds expected, not " .. inspect(interval), 0) end
  local pid = spawn(generator, ms, {})
  if not global.register_name(NAME, pid) then
    exit(pid, "kill")
    error("ticker: the name is taken by " .. inspect(global.whereis_name(NAME)), 0)
  end
  return pid
end

-- Registers a process, which gets the ticks from then on.
function ticker.register(pid)
  global.send(NAME, "register", pid)
end

return ticker
