-- shell: the processes behind node-shell.
--
-- The client is the mailbox that the tool holds.  The keeper takes the requests of the tool; the evaluator, whose group
-- leader is the client, runs the code.  When the evaluator ends, the keeper starts another; when the client ends, both
-- end.
--
--   to the keeper      "eval", n, code, chunk name · "complete", n, line · "interrupt"
--   to the client      "shell", n, what, …         what: "done" · "value", text · "error", text · "more", error
--                                                  "words", length of what they complete, list · "gone", reason

-- Code at the prompt may redefine any global, so the shell uses copies made when it is loaded.
local send <const>, receive <const>, receive_match <const> = send, receive, receive_match
local pcall <const>, load <const>, type <const>, pairs <const>, ipairs <const> = pcall, load, type, pairs, ipairs
local inspect <const>, puts <const>, error <const>, tostring <const> = inspect, puts, error, tostring
local pack <const>, unpack <const>, concat <const>, sort <const> = table.pack, table.unpack, table.concat, table.sort
local group_leader <const>, registered <const>, node <const>, global <const> = group_leader, registered, node, global
local find <const>, match <const>, sub <const> = string.find, string.match, string.sub
local gsub <const>, gmatch <const>, interrupt <const> = string.gsub, string.gmatch, interrupt

local shell = {}

local PATIENCE <const> = 500 -- milliseconds from the interrupt of an evaluation to the kill of its process

-- --- evaluation -----------------------------------------------------------------------------------------------

local function text_of(reason)
  return type(reason) == "string" and reason or inspect(reason)
end

local function outcome(ok, ...)
  local values = pack(...)
  if not ok then return "error", text_of(values[1]) end
  if values.n == 0 then return "done" end
  for i = 1, values.n do values[i] = inspect(values[i]) end
  return "value", concat(values, ", ")
end

-- Does the code end in the middle of a statement?  A quoted string ends on its line, unless a
-- backslash ends the line.
local function breaks_off(why, code)
  return find(why, "<eof>$") and (find(code, "\\$") or not find(why, "unfinished string near <eof>$"))
end

-- An expression returns its values; "more" says that the code ends in the middle of a statement.
local function evaluate(code, name)
  local chunk, no_value = load("return " .. code, name)
  local why
  if not chunk then chunk, why = load(code, name) end
  if chunk then return outcome(pcall(chunk)) end
  if breaks_off(no_value, code) then why = no_value end
  return breaks_off(why, code) and "more" or "error", why
end

-- --- completion -----------------------------------------------------------------------------------------------

-- Lua's keywords; every other word comes from the tables that the code at the prompt can name.
local KEYWORDS <const> = [[
  and break do else elseif end false for function goto if in local nil not or repeat return then true until while]]

local function add_keys(found, t)
  for key in pairs(t) do
    if type(key) == "string" and find(key, "^[%a_][%w_]*$") then found[key] = true end
  end
end

local function globals()
  local found = {}
  for word in gmatch(KEYWORDS, "%S+") do found[word] = true end
  add_keys(found, _G)
  return found
end

-- The fields of the table that a path such as "node." or "a.b." names.
local function fields(path)
  local t, found = _G, {}
  for name in gmatch(path, "[%a_][%w_]*") do
    t = t[name]
    if type(t) ~= "table" then return found end
  end
  add_keys(found, t)
  return found
end

-- What completes a word within a string: the names of nodes and of processes.
local function names()
  local found = {[node.self()] = true}
  for _, list in ipairs({node.list(), registered(), global.registered_names()}) do
    for _, name in ipairs(list) do found[name] = true end
  end
  return found
end

local function candidates(line)
  local strings = gsub(gsub(line, "\\.", ""), "%b\"\"", "")
  local quoted = match(gsub(strings, "%b''", ""), "[\"']([^\"']*)$")
  if quoted then return quoted, names() end
  local path, word = match(line, "([%w_%.:]-)([%a_]?[%w_]*)$")
  return word, find(path, "[%.:]$") and fields(path) or globals()
end

local function complete(line)
  local word, found = candidates(line)
  local list = {}
  for name in pairs(found) do
    if sub(name, 1, #word) == word then list[#list + 1] = name end
  end
  sort(list)
  return "words", #word, list
end

-- --- the evaluator --------------------------------------------------------------------------------------------

-- Prints and removes all messages in the mailbox.
local function flush()
  while true do
    local message = pack(receive(0))
    if message.n == 1 and message[1] == nil then return end
    puts(inspect({unpack(message, 1, message.n)}))
  end
end

-- An interrupt is an error that evaluate catches, as a rule.  One that comes just before or after that is caught here.
local function evaluator(client, keeper)
  local current -- the number of the evaluation whose outcome is not yet known
  group_leader(client)
  _G.flush = flush

  local function serve()
    local _, what, n, text, name = receive_match({keeper})
    if what == "eval" then
      current = n
      local outcome = pack(evaluate(text, name))
      current = nil
      send(client, "shell", n, unpack(outcome, 1, outcome.n))
      send(keeper, "idle", n)
    elseif what == "complete" then
      local ok, kind, length, list = pcall(complete, text)
      send(client, "shell", n, "words", ok and length or 0, ok and list or {})
    end
  end

  while true do
    local ok, problem = pcall(serve)
    if not ok and problem ~= "interrupted" then error(problem, 0) end
    if current then
      send(client, "shell", current, "error", problem)
      send(keeper, "idle", current)
      current = nil
    end
  end
end

-- --- the keeper -----------------------------------------------------------------------------------------------

-- Serves the client until it ends.
function shell.start(client)
  local me, busy = self(), nil
  local worker = spawn_monitor(evaluator, client, me)
  monitor(client)
  while true do
    local what, a, b, c = receive()
    if what == "eval" or what == "complete" then
      if what == "eval" then busy = a end
      send(worker, me, what, a, b, c)
    elseif what == "idle" and a == busy then
      busy = nil
    elseif what == "interrupt" and busy then
      interrupt(worker)
      send_after(PATIENCE, me, "overdue", busy)
    elseif what == "overdue" and a == busy then
      exit(worker, "kill")
    elseif what == "DOWN" and b == client then
      return exit(worker, "kill")
    elseif what == "DOWN" and b == worker then
      send(client, "shell", busy or 0, "gone", text_of(c))
      busy, worker = nil, spawn_monitor(evaluator, client, me)
    end
  end
end

return shell
