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

-- A server whose reply is the request, and a caller; the request is a small integer.
local function echo()
  return assert(require('server').start({handle_call = function(_, request) return 'reply', request end}))
end

local function calls()
  local call, pid, n = require('server').call, echo(), 200000 // SCALE
  time('server.call', n, function() for i = 1, n do call(pid, i) end end)
end

local function clients()
  local pid, count, each, me = echo(), 1000, 200 // SCALE, self()
  local all = {}
  for i = 1, count do
    all[i] = spawn(function()
      local call = require('server').call
      send(me, 'ready')
      receive()
      for k = 1, each do call(pid, k) end
      send(me, 'done')
    end)
  end
  for _ = 1, count do receive() end
  time('server.call, 1,000 clients', count * each, function()
    for i = 1, count do send(all[i], 'go') end
    for _ = 1, count do receive() end
  end)
end

local function fill_mailbox()
  for i = 1, 100000 do send(self(), 'other', i) end
end

local function calls_behind()
  local call, pid, n = require('server').call, echo(), 20000 // SCALE
  fill_mailbox()
  time('server.call behind 100,000', n, function() for i = 1, n do call(pid, i) end end)
end

local function matches_behind()
  local n = 200 // SCALE
  fill_mailbox()
  time('receive_match behind 100,000', n, function()
    for i = 1, n do send(self(), 'wanted', i) receive_match({'wanted'}) end
  end)
end

-- The time until all is sent, and, as each receiver answers, until the last one has its message.
local function to_all()
  local count, rounds, me, pids = 10000, 20 // SCALE, self(), {}
  local function body()
    while true do
      local words = receive()
      send(me, #words)
    end
  end
  for i = 1, count do pids[i] = spawn(body) end
  local lines = {}
  for i = 1, 100 do lines[i] = ('%03d'):format(i) .. ('x'):rep(97) end
  for name, message in pairs({['10 KB to 10,000, a string'] = table.concat(lines), ['10 KB to 10,000, a list'] = lines}) do
    local sent = 0
    time(name, count * rounds, function()
      for _ = 1, rounds do
        local start = monotonic()
        send_all(pids, message)
        sent = sent + monotonic() - start
        for _ = 1, count do receive() end
      end
    end)
    say(name .. ': sent', sent / (count * rounds))
  end
end

local function timers()
  local n, refs, me = 200000 // SCALE, {}, self()
  time('send_after', n, function() for i = 1, n do refs[i] = send_after(1000000, me, 'late') end end)
  time('cancel_timer', n, function() for i = 1, n do cancel_timer(refs[i]) end end)
end

local function many_to_one()
  local count, each, me, all = 10000, 20 // SCALE, self(), {}
  for i = 1, count do
    all[i] = spawn(function()
      receive()
      for k = 1, each do send(me, i, k) end
    end)
  end
  send(spawn(function() send(receive(), 1) end), me)
  receive()
  time('10,000 to one mailbox', count * each, function()
    for i = 1, count do send(all[i], 'go') end
    for _ = 1, count * each do receive() end
  end)
end

-- A thousand processes count for the same ten seconds.  What the one with the least has counted, and the one with the
-- most, in percent of the mean.
local function shares()
  local n, ms, me, pids, counts, sum = 1000, 10000 // SCALE, self(), {}, {}, 0
  local function count(me)
    local stop, i = receive(), 0
    while monotonic() < stop do i = i + 1 end
    send(me, i)
  end
  for i = 1, n do pids[i] = spawn(count, me) end
  send_all(pids, monotonic() + ms * 1000000)
  for i = 1, n do
    counts[i] = receive()
    sum = sum + counts[i]
  end
  table.sort(counts)
  say('least of 1,000 counters, %', counts[1] * n / sum * 100)
  say('most of 1,000 counters, %', counts[n] * n / sum * 100)
end

local function long_list()
  local list, rounds = {}, 30
  for i = 1, 1000000 // SCALE do list[i] = i end
  local other = spawn(function()
    while true do
      local from, _, last = receive()
      send(from, last)
    end
  end)
  time('a list of 1 M integers', rounds, function()
    for _ = 1, rounds do send(other, self(), list, 1) receive() end
  end)
end

-- Spawns whose function captures a module: one of the node's, and a table of the program's own with 20 functions.
local function captured()
  local n, me, server, own = 20000 // SCALE, self(), require('server'), {}
  for i = 1, 20 do own['f' .. i] = function(x) return x + i end end
  time('spawn with a module', n, function()
    for i = 1, n do spawn(function() send(me, server and i) end) receive() end
  end)
  time('spawn with a table of own', n, function()
    for i = 1, n do spawn(function() send(me, own and i) end) receive() end
  end)
end

-- At worst, how long a message takes that overtakes a million others, and then a kill.
local function overtaking()
  local me, worst = self(), 0
  local pid = spawn(function()
    while true do
      local _, at = receive_match({'urgent'})
      send(me, monotonic() - at)
    end
  end)
  for i = 1, 1000000 // SCALE do send(pid, 'other', i) end
  for i = 0, 20 do
    send_urgent(pid, 'urgent', monotonic())
    local took = receive()
    if i > 0 then worst = math.max(worst, took) end -- the first one came during the flood
    sleep(100) -- it has looked at all messages again, and waits
  end
  say('send_urgent past 1 M', worst)
  monitor(pid)
  local start = monotonic()
  exit(pid, 'kill')
  receive()
  say('kill past 1 M', monotonic() - start)
end

local function cores()
  local n <close> = io.open('/proc/cpuinfo')
  return select(2, n:read('a'):gsub('\nprocessor', '')) + 1
end

-- The share of all cores that endless loops get, which were spawned by a process that waits in between.
local function all_cores()
  local ms, cpu, start = 3000 // SCALE
  for _ = 1, 16 do
    spawn(function() while true do end end)
    sleep(1)
  end
  cpu, start = os.clock(), monotonic()
  sleep(ms)
  say('cores used by 16 loops, %', (os.clock() - cpu) * 1e11 / (monotonic() - start) / cores())
end

-- How late, at worst, a process that sleeps a millisecond at a time wakes, while a process of its isolate computes
-- without ever waiting and another core is idle.
local function beside_one()
  local ticks, worst = 3000 // SCALE, 0
  spawn(function() while true do end end)
  for _ = 1, ticks do
    local start = monotonic()
    sleep(1)
    worst = math.max(worst, monotonic() - start - 1000000)
  end
  say('worst wake beside one loop', worst)
end

local programs = {
  ring, spawns, named, idle, pairs_of_pingpong, names, calls, clients, calls_behind, matches_behind, to_all, timers,
  many_to_one, shares, stall, beside, long_list, captured, overtaking, all_cores, beside_one,
}
if programs[WHICH] then programs[WHICH]() end
