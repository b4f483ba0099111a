-- uptime: runs a command on all nodes at the same time, and prints the output or the failure of each.
--
--   node-spawn -f share/examples/uptime.lua
--   node-spawn -f share/examples/uptime.lua -- 'df -h /'      runs another command

local task = require("task")

local command = ... or "uptime"
local nodes = {node.self(), table.unpack(node.list())}
table.sort(nodes)

local answers, failures = task.on_nodes(nodes, function()
  local output, status = sh(command)
  if status ~= 0 then error(("%s: status %d"):format(command, status), 0) end
  return output
end, {timeout = 10000})

for _, name in ipairs(nodes) do
  local text = answers[name] or "failed: " .. failures[name] .. "\n"
  io.write(name, ": ", text)
end
if next(failures) then exit({"exit", 1}) end
