-- Benchmarks of two nodes: runs on one of them.  Its arguments are the name of the other node and, optionally, a number
-- that divides the work.  Prints lines of name, tab, nanoseconds per operation.  link.erl has the same programs.

local other, scale = ...
scale = tonumber(scale) or 1
local me = self()

local function time(name, operations, run)
  local start = monotonic()
  run(operations)
  puts(string.format('%s\t%.1f', name, (monotonic() - start) / operations))
end

local function pingpong()
  local p = node.spawn(other, function()
    while true do
      local from, n = receive()
      send(from, n)
    end
  end)
  time('ping-pong of two nodes', 20000 // scale, function(n)
    for i = 1, n do send(p, me, i) receive() end
  end)
  exit(p, 'kill')
end

local function stream(size, n)
  local p = node.spawn(other, function()
    local message
    repeat message = receive() until type(message) ~= 'string'
    send(message, 'ok')
  end)
  local bytes = ('x'):rep(size)
  time(string.format('one-way of %d bytes', size), n // scale, function(n)
    for _ = 1, n do send(p, bytes) end
    send(p, me)
    receive()
  end)
end

local function spawns()
  time('spawn there and hear back', 10000 // scale, function(n)
    for i = 1, n do
      node.spawn(other, function() send(me, i) end)
      receive()
    end
  end)
end

node.connect(other)
pingpong()
stream(100, 300000)
stream(10000, 30000)
spawns()
