-- news: a group of listeners on all nodes; each of them gets every message to the group.
--
--   node-spawn -f share/examples/news.lua                     listens, and prints each message
--   node-spawn two@rane -f share/examples/news.lua            listens on another node
--   node-spawn -f share/examples/news.lua -- 'dinner is ready'   sends a message, and prints to how many

local group = require("group")

local GROUP <const> = "news"

local text = ...
if text then
  puts(group.send(GROUP, "news", node.self(), text))
  return
end

group.join(GROUP)
puts("listening, as one of " .. #group.members(GROUP))
while true do
  local _, from, said = receive_match({"news"})
  puts(from .. ": " .. said)
end
