-- supervised: a worker that always fails, and a supervisor that restarts it until the limit of restarts is reached.
--
--   node-spawn -f share/examples/supervised.lua
--   node-spawn -f share/examples/supervised.lua -- 5      allows five restarts

local supervisor = require("supervisor")

local leader = self()

-- Reports that it has started, and fails as soon as that was read: so the supervisor is monitored by then.
local function worker()
  send(leader, "started", self())
  receive()
  exit("out of luck")
end

local top = assert(supervisor.start({
  strategy = "one_for_one",
  max_restarts = math.tointeger(... or 2),
  max_seconds = 10,
  children = {
    {id = "steady", start = function() return spawn_link(receive) end},
    {id = "unlucky", start = function() return spawn_link(worker) end},
  },
}))

local ref = monitor(top)
local starts = 0
repeat
  local kind, from, _, reason = receive()
  if kind == "started" then
    starts = starts + 1
    puts("start " .. starts)
    send(from, "fail")
  end
  if kind == "DOWN" then puts("the supervisor gave up: " .. inspect(reason)) end
until kind == "DOWN"
