-- counter: a server with a global name; a bad request is an error of the caller, and the server goes on.
--
--   node-start --path share/examples …
--   node-spawn -d -m counter.start -- 10        the counter starts at 10, and has the global name "counter"
--   node-spawn -m counter.show -- 5             adds 5 and prints the sum, on any node of the cluster
--   node-spawn -m counter.show -- five          an error in the caller; the counter goes on

local server = require("server")

local counter = {}

-- --- callbacks, which run in the server ------------------------------------------------------------------------

function counter.init(first)
  return {sum = first}
end

function counter.handle_call(state, n)
  state.sum = state.sum + n
  return "reply", state.sum
end

-- --- functions for other processes ------------------------------------------------------------------------------------------

function counter.start(first)
  local pid, reason = server.start("counter", {global = "counter"}, math.tointeger(first or 0))
  if not pid then error("counter: " .. inspect(reason), 0) end
  puts("counter: " .. inspect(pid))
end

function counter.add(n)
  return server.call("counter", n)
end

function counter.show(text)
  local n = math.tointeger(text)
  if not n then error("counter: a whole number expected, not " .. inspect(text), 0) end
  puts(counter.add(n))
end

return counter
