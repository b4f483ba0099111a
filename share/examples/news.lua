-- news: whoever listens, on whatever node, gets what anybody says.
--
--   node-spawn -f share/examples/news.lua                     listens, and prints
--   node-spawn two@rane -f share/examples/news.lua            listens on another node
--   node-spawn -f share/examples/news.lua -- 'dinner is ready'   says it, and to how many

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
