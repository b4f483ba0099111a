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

-- Each of 64 processes spawns, hears back, and goes on.
local function spawns_at_once()
  local each = 10000 // scale // 64
  time('the same, 64 at once', each * 64, function()
    for _ = 1, 64 do
      spawn(function()
        local worker = self()
        for i = 1, each do
          node.spawn(other, function() send(worker, i) end)
          receive()
        end
        send(me, 'done')
      end)
    end
    for _ = 1, 64 do receive() end
  end)
end

-- A message to all members of a group on the other node, the last of which answers.
local function group()
  local size = 10000
  local first = node.spawn(other, function()
    local from = receive()
    local pids = {}
    for i = 1, size do
      pids[i] = spawn(function()
        local message
        repeat
          message = receive()
          if i == size then send(from, message) end
        until message == 'stop'
      end)
    end
    send(from, pids)
  end)
  send(first, me)
  local pids = receive()
  time('message to 10,000 members', 40 // scale, function(n)
    for i = 1, n do
      send_all(pids, i)
      receive()
    end
  end)
  send_all(pids, 'stop')
  receive()
end

node.connect(other)
pingpong()
stream(100, 300000)
stream(10000, 30000)
spawns()
spawns_at_once()
group()
