-- Library calls that take long, each beside two tickers, which sleep for 1 ms at a time: one in the isolate of the
-- caller, so on the same core, and one in another isolate.  Each run executes one program: WHICH is its place in the
-- list below, SCALE divides its work.  Prints a line: the name, the time of the call, and by how much each ticker
-- was late at most, all in milliseconds.  ONLY in the environment is a pattern of the names to run.

local M = 1000000 // SCALE

local function text(n) return ('a'):rep(n) end
local function list(n)
  local t = {}
  for i = 1, n do t[i] = i end
  return t
end

-- Each program: a name; what makes its arguments; the call.
local programs = {
  {'no call', function() end, function() sleep(50) end},
  {'upper 100 MB', function() return text(100 * M) end, string.upper},
  {'lower 100 MB', function() return text(100 * M) end, string.lower},
  {'reverse 100 MB', function() return text(100 * M) end, string.reverse},
  {'rep of a byte, 100 MB', function() return 'a', 100 * M end, string.rep},
  {'rep of 1 MB, 100 MB', function() return text(M), 100 end, string.rep},
  {'rep with a separator', function() return 'a', 50 * M, ',' end, string.rep},
  {'sub 100 MB', function() return text(100 * M), 2 end, string.sub},
  {'find plain 100 MB', function() return text(100 * M), 'ab', 1, true end, string.find},
  {'find plain 5 MB in 100 MB', function() return text(100 * M), text(5 * M) .. 'b', 1, true end, string.find},
  {'find pattern 100 MB', function() return text(100 * M), '[bc]' end, string.match},
  {'gsub 50 MB', function() return text(50 * M), 'a', 'bc' end, string.gsub},
  {'byte of 1 M', function() return text(M), 1, -1 end, function(...) return select('#', string.byte(...)) end},
  {'format %q 40 MB', function() return '%q', ('\0001"\n'):rep(10 * M) end, string.format},
  {'format %s 100 MB', function() return '%s%s', text(100 * M), 'x' end, string.format},
  {'format of 20 MB', function() return text(20 * M) .. '%d', 1 end, string.format},
  {'os.date of 20 MB', function() return ('%c'):rep(10 * M) end, os.date},
  {'load 60 MB', function() return ('local x = 1\n'):rep(5 * M):gsub('local x', 'x') end, load},
  {'load a string of 60 MB', function() return 'return "' .. text(60 * M) .. '"' end, load},
  {'load, list of 10 M', function() return 'return {' .. ('1,'):rep(10 * M) .. '}' end, load},
  {'unpack of blanks', function() return (' '):rep(100 * M), '' end, string.unpack},
  {'pack of blanks', function() return (' '):rep(100 * M) end, string.pack},
  {'packsize of blanks', function() return (' '):rep(100 * M) end, string.packsize},
  {'pack c100000000', function() return 'c' .. 100 * M, '' end, string.pack},
  {'pack s of 100 MB', function() return 's', text(100 * M) end, string.pack},
  {'utf8.len 100 MB', function() return text(100 * M) end, utf8.len},
  {'utf8.offset 100 MB', function() return text(100 * M), 90 * M end, utf8.offset},
  {'utf8.codepoint of 0.9 M', function() return text(M), 1, 900000 // SCALE end,
    function(...) return select('#', utf8.codepoint(...)) end},
  {'utf8.codes of trailing bytes', function() return 'a' .. ('\x80'):rep(100 * M) end,
    function(s) return pcall(function() for _ in utf8.codes(s) do end end) end},
  {'concatenation 100 MB', function() return text(100 * M), 'x' end, function(a, b) return a .. b end},
  {'comparison 100 MB', function() return text(100 * M), text(100 * M) end, function(a, b) return a < b, a == b end},
  {'a key of 100 MB', function() return text(100 * M), {1, x = 2} end, function(a, t) return t[a] end},
  {'tonumber of 100 MB', function() return (' '):rep(100 * M) .. '1' end, tonumber},
  {'tonumber of 50 MB, base 36', function() return text(50 * M), 36 end, tonumber},
  {'arithmetic with 100 MB', function() return (' '):rep(100 * M) .. '1' end, function(s) return s + 1 end},
  {'table.concat of two of 50 MB', function() return {text(50 * M), text(50 * M)} end, table.concat},
  {'table.concat of 5 M', function() local t = list(5 * M) return t, ',' end, table.concat},
  {'table.concat, separator 1 MB', function() return list(100), text(M) end, table.concat},
  {'table.insert in front of 10 M', function() return list(10 * M), 1, 0 end, table.insert},
  {'table.remove in front of 10 M', function() return list(10 * M), 1 end, table.remove},
  {'table.move of 10 M', function() return list(10 * M), 1, 10 * M, 2 end, table.move},
  {'table.unpack of 0.9 M', function() return list(900000 // SCALE), 1, 900000 // SCALE end,
    function(...) return select('#', table.unpack(...)) end},
  {'table.pack of 0.9 M', function() return list(900000 // SCALE) end,
    function(t) return #table.pack(table.unpack(t)) end},
  {'string.char of 0.9 M', function()
    local t = {}
    for i = 1, 900000 // SCALE do t[i] = 65 end
    return t
  end, function(t) return #string.char(table.unpack(t)) end},
  {'sort of 1 M', function()
    local t = {}
    for i = 1, M do t[i] = i * 7919 % 1000003 end
    return t
  end, table.sort},
  {'sort of 0.1 M strings of 1 KB', function()
    local t, pad = {}, text(1000)
    for i = 1, M // 10 do t[i] = pad .. i * 7919 % 1000003 end
    return t
  end, table.sort},
  {'# of a table with holes', function()
    local t = list(4 * M)
    for i = 2, 4 * M, 3 do t[i] = nil end
    return t
  end, function(t) return #t end},
  {'next of an emptied table', function()
    local t = {}
    for i = 1, 4 * M do t[i + 0.5] = true end
    for k in pairs(t) do t[k] = nil end
    return t
  end, function(t) return next(t) end},
  {'inspect 150 x 1,000 keys', function()
    local t = {}
    for i = 1, 150 do
      t[i] = {}
      for k = 1, 1000 do t[i]['key' .. k] = k end
    end
    return t
  end, inspect},
  {'inspect of 1 MB of binary', function() return ('\xff'):rep(M) end, inspect},
  {'inspect of 10 M items', function() return {list(10 * M)} end, inspect},
  {'send of 100 MB', function() return text(100 * M) end, function(s) send(self(), s) end},
  {'receive of 100 MB', function() send(self(), text(100 * M)) end, function() return receive() end},
  {'send of 1 M integers', function() return list(M) end, function(t) send(self(), t) return receive() end},
  {'puts of 10 MB', function() return text(10 * M) end, function(s) puts(spawn(function() sleep(1000) end), s) end},
  {'io.read of 100 MB', function()
    local path = os.tmpname()
    local f = io.open(path, 'w')
    f:write(text(100 * M))
    f:close()
    local file = io.open(path)
    os.remove(path)
    return file
  end, function(file) return #file:read('a') end},
  {'io.write of 100 MB', function() return io.open('/dev/null', 'w'), text(100 * M) end,
    function(file, s) file:write(s) end},
  {'error with 100 MB', function() return text(100 * M) end, function(s) return pcall(error, s) end},
  {'global name of 100 MB', function() return text(100 * M) end, function(s) return pcall(whereis, s) end},
  {'growing a table to 4 M keys', function() end, function()
    local t = {}
    for i = 1, 4 * M do t[i + 0.5] = true end
  end},
  {'growing a list to 10 M', function() end, function() list(10 * M) end},
  {'a list of 10 M beside garbage', function() return list(10 * M) end, function(t)
    for i = 1, 5 * M do t[i] = {} end
  end},
  {'1 M small tables beside garbage', function()
    local t = {}
    for i = 1, M do t[i] = {} end
    return t
  end, function(t) for _ = 1, 5 * M do t[1] = {} end end},
  {'weak keys, a chain of 10,000', function()
    local weak, keys = setmetatable({}, {__mode = 'k'}), {}
    for i = 1, 10000 do keys[i] = {} end
    for i = 1, 9999 do weak[keys[i]] = keys[i + 1] end
    return weak, keys[1]
  end, function() for _ = 1, 200000 do local _ = {{}} end end},
  {'exit with 100,000 links', function()
    local n, me = 100000 // SCALE, self()
    local hub = spawn(function()
      for _ = 1, n do spawn_link(function() trap_exit(true) receive() receive() end) end
      send(me, 'ready')
      receive()
    end)
    receive()
    return hub
  end, function(hub)
    monitor(hub)
    send(hub, 'go')
    receive_match({'DOWN'})
    sleep(200)
  end},
  {'exit with 100,000 monitors', function()
    local n, me = 100000 // SCALE, self()
    local hub = spawn(function()
      local sink = spawn(function() receive() end)
      for _ = 1, n do monitor(sink) end
      send(me, 'ready')
      receive()
    end)
    receive()
    return hub
  end, function(hub)
    monitor(hub)
    send(hub, 'go')
    receive_match({'DOWN'})
    sleep(200)
  end},
  {'end of one watched by 100,000', function()
    local n = 100000 // SCALE
    local p = spawn(function() receive() end)
    for _ = 1, n do monitor(p) end
    return p, n
  end, function(p, n)
    send(p, 'go')
    for _ = 1, n do receive() end
  end},
  {'1 M timers due at once', function()
    local p, start = spawn(function() sleep(60000) end), monotonic()
    for _ = 1, M do send_after(5000 - (monotonic() - start) // 1000000, p, 1) end
    sleep(4800 - (monotonic() - start) // 1000000)
  end, function() sleep(2000) end},
  {'exit with 1 M timers', function()
    local me = self()
    local p = spawn(function()
      for _ = 1, M do send_after(60000, self(), 1) end
      send(me, 'ready')
      receive()
    end)
    receive()
    return p
  end, function(p)
    monitor(p)
    exit(p, 'kill')
    receive()
    sleep(200)
  end},
  {'exit with 1 M messages', function()
    local p = spawn(function() sleep(60000) end)
    for _ = 1, M do send(p, 1) end
    return p
  end, function(p)
    monitor(p)
    exit(p, 'kill')
    receive()
    sleep(200)
  end},
}

-- Begins to measure at the message "begin", and answers "end" with the most that a sleep of 1 ms took longer.
local function ticker(caller)
  local worst = 0
  while true do
    local start = monotonic()
    sleep(1)
    worst = math.max(worst, monotonic() - start - 1000000)
    local what = receive(0)
    if what == 'begin' then worst = 0
    elseif what == 'end' then send(caller, 'worst', self(), worst) return end
  end
end

local only, chosen = os.getenv('ONLY') or '', {}
for _, program in ipairs(programs) do
  if program[1]:find(only) then chosen[#chosen + 1] = program end
end

local name, prepare, call = table.unpack(chosen[WHICH] or {})
if name then
  -- The first child of a process that computes alone is at home, the second one elsewhere.
  local near, far = spawn(ticker, self()), spawn(ticker, self())
  local args = table.pack(prepare())
  sleep(100)
  send(near, 'begin')
  send(far, 'begin')
  sleep(10)
  local start = monotonic()
  local ok, problem = pcall(call, table.unpack(args, 1, args.n))
  local took = monotonic() - start
  send(near, 'end')
  send(far, 'end')
  local _, _, beside = receive_match({'worst', near})
  local _, _, apart = receive_match({'worst', far})
  puts(string.format('%-42s %10.1f %10.1f %10.1f%s', name, took / 1e6, beside / 1e6, apart / 1e6,
    ok and '' or '  ' .. tostring(problem):sub(1, 60)))
end
