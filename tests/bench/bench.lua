-- Benchmarks of green threads.  Each run executes one program: WHICH is its place in the list below, SCALE divides its
-- work.  Prints lines of name, tab, nanoseconds per operation (or bytes).  bench.erl has the same programs.

local function say(name, value) puts(string.format('%s\t%.1f', name, value)) end

local function time(name, operations, run)
  local start = monotonic()
  run()
  say(name, (monotonic() - start) / operations)
end

-- A thousand processes in a ring pass on one message.
local function ring()
  local size, hops, me = 1000, 1000000 // SCALE, self()
  local function forward(next)
    while true do
      local what, n = receive()
      send(next, what, n - 1)
      if n <= 0 then return end
    end
  end
  local function first(next)
    while true do
      local what, n = receive()
      if n <= 0 then return send(me, 'done') end
      send(next, what, n - 1)
    end
  end
  local head = spawn(function() first((receive())) end)
  local p = head
  for _ = 2, size do p = spawn(forward, p) end
  send(head, p)
  sleep(50)
  time('ring', hops, function() send(p, 'token', hops) receive() end)
end

local function spawns()
  local n, me = 300000 // SCALE, self()
  time('spawn, reply, exit', n, function()
    for i = 1, n do spawn(function() send(me, i) end) receive() end
  end)
end

local function named()
  local n, me = 300000 // SCALE, self()
  local function answer(who, i) send(who, i) end
  time('spawn of a named function', n, function()
    for i = 1, n do spawn(answer, me, i) receive() end
  end)
end

local function resident()
  local statm <close> = io.open('/proc/self/statm')
  return tonumber(statm:read('a'):match('%d+ (%d+)')) * 4096
end

-- The last process answers: all processes have then been started.
local function idle()
  local n, before = 1000000 // SCALE, resident()
  time('spawn idle', n, function()
    for _ = 1, n do spawn(function() receive() end) end
    send(spawn(function() send(receive(), 1) end), self())
    receive()
  end)
  say('idle, bytes', (resident() - before) / n)
end

local function pairs_of_pingpong()
  local count, rounds, me = 100, 20000 // SCALE, self()
  local function pong()
    while true do
      local from, n = receive()
      send(from, n)
      if n == 0 then return end
    end
  end
  local function ping(q)
    receive()
    for i = rounds, 0, -1 do send(q, self(), i) receive() end
    send(me, 1)
  end
  local pings = {}
  for i = 1, count do pings[i] = spawn(function() ping(spawn(pong)) end) end
  sleep(50)
  time('100 pairs of ping-pong', 2 * count * rounds, function()
    for i = 1, count do send(pings[i], 1) end
    for _ = 1, count do receive() end
  end)
end

local function names()
  local n = 2000000 // SCALE
  register('someone', self())
  time('whereis', n, function() for _ = 1, n do whereis('someone') end end)
end

-- How late, at worst, a process that sleeps a millisecond at a time wakes while a million other processes sleep.
local function stall()
  local n, ticks, worst, me = 1000000 // SCALE, 5000 // SCALE, 0, self()
  for _ = 1, n do spawn(function() send(me, 1) sleep(1e9) end) end
  for _ = 1, n do receive() end
  for _ = 1, ticks do
    local start = monotonic()
    sleep(1)
    worst = math.max(worst, monotonic() - start - 1000000)
  end
  say('longest stall of a ticker', worst)
end

-- How late a process that sleeps a millisecond wakes while other processes, ten in its own isolate and ten in others,
-- compute without ever waiting.
local function beside()
  local tries, took = 500 // SCALE, {}
  local function spin() while true do end end
  for _ = 1, 10 do spawn(spin) sleep(0) end
  for _ = 1, 10 do spawn(spin) end
  for i = 1, tries do
    local start = monotonic()
    sleep(1)
    took[i] = monotonic() - start - 1000000
  end
  table.sort(took)
  say('wake beside 20 endless loops', took[tries // 2 + 1])
  say('the same, 99th percentile', took[tries * 99 // 100])
end

local program = ({ring, spawns, named, idle, pairs_of_pingpong, names, stall, beside})[WHICH]
if program then program() end
