-- ticker: a server that ticks.  It has the global name "ticker"; whoever registers with it gets "tick" each time no
-- message came for an interval.
--
--   node-spawn -d -m ticker.start             every 2 seconds
--   node-spawn -d -m ticker.start -- 300      every 300 ms

local ticker = {}

local NAME <const> = "ticker"
local INTERVAL <const> = 2000

-- The process itself: a message is a client that comes or has gone, silence is a tick.
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

-- Starts the ticker and names it; returns its pid.  Fails when there is one in the cluster already.
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

-- From now on the process gets the ticks.
function ticker.register(pid)
  global.send(NAME, "register", pid)
end

return ticker
