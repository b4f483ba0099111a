-- Benchmarks of registrations of global names: runs on one of several connected nodes.  Its arguments are the number of
-- nodes and, optionally, a number that divides the work.  Prints lines of name, tab, nanoseconds per operation.
-- names.erl has the same programs.

local nodes, scale = ...
nodes, scale = tonumber(nodes), tonumber(scale) or 1
local me = self()

-- Each name is registered for a different process, because Erlang's `global` requires that.
local function worker(w, each)
  local processes = {}
  for i = 1, each do processes[i] = spawn(function() receive() end) end
  send(me, 'waiting')
  receive()
  for i = 1, each do assert(global.register_name(w .. '_' .. i, processes[i])) end
  send(me, 'ready')
  for i = 1, each do
    global.unregister_name(w .. '_' .. i)
    send(processes[i], 'stop')
  end
  send(me, 'gone')
end

local function wait_for(word, n)
  for _ = 1, n do receive_match({word}) end
end

for _, workers in ipairs { 1, 64 } do
  local each = math.max(1, 3000 // scale // workers)
  local processes = {}
  for w = 1, workers do processes[w] = spawn(worker, w, each) end
  wait_for('waiting', workers)
  local start = monotonic()
  for w = 1, workers do send(processes[w], 'go') end
  wait_for('ready', workers)
  local time = monotonic() - start
  wait_for('gone', workers)
  puts(string.format('%d nodes, %d at a time\t%.1f', nodes, workers, time / (each * workers)))
end
