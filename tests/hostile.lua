-- Calls every function that a process has (but os.tmpname, which leaves a file), and the methods of files, with
-- objects whose metamethods misbehave.  Prints "true true" when all calls were made and their processes have ended.
local events = {"__len", "__index", "__newindex", "__pairs", "__tostring", "__close", "__eq", "__lt", "__le", "__concat",
  "__call", "__unm", "__add", "__name"}
local sink = spawn(function() while true do receive() end end)
local acts = {
  send = function() send(sink, "x", {aaaa = {"zz", 1}}) return 3 end,
  exit = function() exit("bye") end,
  raise = function() error({}) end,
  wait = function() receive(2) return "a" end,
  forever = function() while true do end end,
  itself = function(object) return object end,
}
local function hostile(act)
  local meta = {}
  for _, event in ipairs(events) do meta[event] = acts[act] end
  meta.__name = "hostile"
  return setmetatable({}, meta)
end
local shapes = {
  function(o) return o end,
  function(o) return o, o, o end,
  function(o) return {o, o}, {x = o, [o] = o} end,
  function(o) return "a%s", o, function() return o .. o end end,
  function(o) return {argv = {"true", o}, o, env = o, timeout = o, name = o}, self(), o end,
}
local calls = {}
local function collect(prefix, t)
  for name, f in pairs(t) do
    if type(f) == "function" and name ~= "tmpname" then calls[#calls + 1] = f end
    if type(f) == "table" and prefix == "" and name ~= "_G" and name ~= "package" then collect(name .. ".", f) end
  end
end
collect("", _G)
for _, name in ipairs{"server", "supervisor", "task", "group"} do collect(name .. ".", require(name)) end
for _, method in ipairs{"read", "write", "lines", "seek", "setvbuf", "flush", "close"} do
  calls[#calls + 1] = function(...)
    local file <close> = io.open("/dev/null", "r+")
    return file[method](file, ...)
  end
end
local open, count = {}, 0
for act in pairs(acts) do
  for _, f in ipairs(calls) do
    for _, shape in ipairs(shapes) do
      local pid, ref = spawn_monitor(function()
        group_leader(sink)
        local o <close> = hostile(act)
        pcall(f, shape(o))
      end)
      open[ref], count = pid, count + 1
    end
  end
  local deadline = monotonic() + 100 * 1000000
  while next(open) do
    local kind, ref = receive_match(function(kind, ref) return kind == "DOWN" and open[ref] ~= nil end, 20)
    if kind then open[ref] = nil
    elseif monotonic() > deadline then for _, pid in pairs(open) do exit(pid, "kill") end end
  end
end
puts(#calls > 100, count == #calls * #shapes * 6)
