-- client: a process that says "tock" on each tick of the ticker.
--
--   node-spawn -d -m client.start

local ticker = require("ticker")

local client = {}

local function receiver()
  if receive() == "tick" then puts("tock in client") end
  return receiver()
end

-- Starts a client, registers it with the ticker of the cluster, and returns its pid.
function client.start()
  local pid = spawn(receiver)
  ticker.register(pid)
  return pid
end

return client
