-- A large message beside a small one: runs on one of two nodes.  Its arguments are the name of the other node, what the
-- message has (text, floats, tables, or none for no message), and how many bytes.  Prints one line: milliseconds until
-- the message has been taken there, and the median and the longest round trip of the small messages meanwhile.

local other, what, bytes = ...
bytes = tonumber(bytes)
local me = self()

local make = {
  text = function() return ('The quick brown fox jumps over the dog.\n'):rep(bytes // 40) end,
  floats = function()
    local t = {}
    for i = 1, bytes // 9 do t[i] = i / 7 end
    return t
  end,
  tables = function()
    local t = {}
    for i = 1, bytes // 40 do t[i] = {id = i, name = 'row', tags = {i, true}} end
    return t
  end,
  none = function() return 'small' end,
}

node.connect(other)
-- The echo and the sink run in isolates of their own, as do the two senders here.  The small messages begin when the
-- large one is made, which keeps a core busy, too.
local echo = node.spawn(other, function()
  while true do
    local from, n = receive()
    send(from, n)
  end
end)
local sink = node.spawn(other, function()
  local from, value = receive()
  send(from, 'taken', #value)
end)
local pinger = node.spawn(node.self(), function()
  local times, stop = {}, false
  receive_match({'go'})
  while not stop do
    local from = monotonic()
    send(echo, self(), 1)
    receive_match({1})
    times[#times + 1] = monotonic() - from
    stop = receive_match({'stop'}, 1)
  end
  table.sort(times)
  send(me, 'pings', #times, times[(#times + 1) // 2] / 1e6, times[#times] / 1e6)
end)
local value = make[what]()
collectgarbage()
send(pinger, 'go')
sleep(300)
local start = monotonic()
send(sink, me, value)
receive_match({'taken'})
local took = (monotonic() - start) / 1e6
if what == 'none' then sleep(1000) end
send(pinger, 'stop')
local _, count, median, longest = receive_match({'pings'})
puts(string.format('%.1f\t%d\t%.3f\t%.3f', took, count, median, longest))
exit(echo, 'kill')
