-- shell: the processes behind node-shell.
--
-- The client is the mailbox that the tool holds.  The keeper takes the requests of the tool; the evaluator, whose group
-- leader is the client, runs the code.  When the evaluator ends, the keeper starts another; when the client ends, both
-- end.
--
--   to the keeper      "eval", n, code, chunk name, view · "complete", n, line · "interrupt"
--   to the client      "shell", n, what, …         what: "done" · "value", text · "values", … · "error", text · "more", error · "leave"
--                                                  "words", length of what they complete, list, lines to show
--                                                  "gone", reason
--
-- view is there for a prompt: {line=, its number, width=, columns, colours=, ascii=, booleans}; {json=true}: the client
-- wants the values themselves.

-- Code at the prompt may redefine any global, so the shell uses copies made when it is loaded.
local send <const>, receive <const>, receive_match <const> = send, receive, receive_match
local pcall <const>, load <const>, type <const>, pairs <const>, ipairs <const> = pcall, load, type, pairs, ipairs
local inspect <const>, puts <const>, error <const>, tostring <const> = inspect, puts, error, tostring
local pack <const>, unpack <const>, concat <const>, sort <const> = table.pack, table.unpack, table.concat, table.sort
local group_leader <const>, registered <const>, node <const>, global <const> = group_leader, registered, node, global
local find <const>, match <const>, sub <const> = string.find, string.match, string.sub
local gsub <const>, gmatch <const>, interrupt <const> = string.gsub, string.gmatch, interrupt
local format <const>, rawequal <const>, getmetatable <const>, rawlen <const> = string.format, rawequal, getmetatable, rawlen
local next <const>, utf8len <const>, mathtype <const>, open <const> = next, utf8.len, math.type, io.open
local functions <const>, process_info <const>, ls <const>, require <const> = functions, process_info, ls, require
local select <const>, whereis <const>, traced <const> = select, whereis, traced
local pretty <const> = require("pretty")

local shell = {}
local OWN_FILE <const> = select(2, ...)

local PATIENCE <const> = 500 -- milliseconds from the interrupt of an evaluation to the kill of its process

-- --- documentation --------------------------------------------------------------------------------------------

-- Adds the functions that a file documents: "--- usage", once for each call, then "-- sentence".
local function read_rows(rows, path)
  local file = path and open(path)
  if not file then return end
  local usage
  for line in file:lines() do
    local call, sentence = match(line, "^%-%-%- ([%w_.]+%(.*)"), match(line, "^%-%- (.*)")
    if call then
      usage = usage and usage .. "\n" .. call or call
    else
      if usage and sentence then
        rows[#rows + 1] = {name = match(usage, "^[%w_.]+"), usage = usage, sentence = sentence}
      end
      usage = nil
    end
  end
  file:close()
end

-- The file of a module, or nil.
local function file_of(module)
  if not find(module, "^[%w_%-.]+$") then return nil end
  for template in gmatch(package.path, "[^;]+") do
    local path = gsub(template, "?", (gsub(module, "%.", "/")))
    local file = open(path)
    if file then
      file:close()
      return path
    end
  end
end

-- The modules that require finds: those of which each directory has a file of its own.
local function modules()
  local found = {}
  for directory in gmatch(package.path, "([^;?]+)/%?%.lua") do
    local ok, names = pcall(ls, directory)
    for _, name in ipairs(ok and names or {}) do
      name = match(name, "^([%w_-]+)%.lua$")
      if name then found[name] = true end
    end
  end
  return found
end

-- The documentation of a function, a list of rows: that of the shell, of the language, or of the module in its name.
local function rows_of(name)
  local all = functions()
  read_rows(all, OWN_FILE)
  local module = match(name, "^([%w_.%-]+)%.[%w_]+$")
  if module and module ~= "node" and module ~= "global" then read_rows(all, file_of(module)) end
  local rows = {}
  for _, row in ipairs(all) do
    if row.name == name then rows[#rows + 1] = row end
  end
  return rows
end

-- The names of the functions and tables that the code at the prompt can name, by value.
local function all_names()
  local names, places = {}, {{"", _G}}
  for name, t in pairs(package.loaded) do
    if type(t) == "table" and name ~= "_G" then places[#places + 1] = {name .. ".", t} end
  end
  for _, name in ipairs({"node", "global"}) do places[#places + 1] = {name .. ".", _G[name]} end
  local function add(value, name)
    if (type(value) == "function" or type(value) == "table") and not names[value] then names[value] = name end
  end
  for _, place in ipairs(places) do
    if place[1] ~= "" then add(place[2], sub(place[1], 1, -2)) end
    for key, value in pairs(place[2]) do
      if type(key) == "string" and key ~= "_" then add(value, place[1] .. key) end
    end
  end
  return names
end

-- The name of a function or a library that the code at the prompt can name, or nil.
local function name_of(value) return all_names()[value] end

local function show_rows(rows)
  for _, row in ipairs(rows) do
    puts(row.usage)
    puts("    " .. row.sentence)
  end
end

local function show_all()
  local own, names = {}, {}
  read_rows(own, OWN_FILE)
  show_rows(own)
  for _, row in ipairs(functions()) do names[#names + 1] = row.name end
  for name in pairs(modules()) do names[#names + 1] = "require(\"" .. name .. "\")" end
  sort(names)
  puts("exit or quit, or Ctrl-D, leaves the prompt.  TAB completes.  h(send), h(node), h(\"server\") tell of:")
  local line = " "
  for _, name in ipairs(names) do
    if #line + #name > 76 then
      puts(line)
      line = " "
    end
    line = line .. " " .. name
  end
  puts(line)
end

-- --- what the prompt adds to the language ----------------------------------------------------------------------

local KEPT <const> = 100 -- lines whose values are kept

--- h([topic])
-- Shows what there is, or the documentation of a function, a library or a module.
local function h(...)
  local topic = ...
  if select("#", ...) == 0 then return show_all() end
  if topic == nil then error("h: nil has no documentation; give a name in quotes, as in h(\"server\")", 0) end
  local name = type(topic) == "string" and topic or name_of(topic)
  if not name then error("h: this value has no name; h() shows what there is", 0) end
  local rows = rows_of(name)
  if #rows > 0 then return show_rows(rows) end
  for _, row in ipairs(functions()) do
    if sub(row.name, 1, #name + 1) == name .. "." then rows[#rows + 1] = row end
  end
  if #rows == 0 then read_rows(rows, file_of(name)) end
  if #rows > 0 then return show_rows(rows) end
  local library, field = match(name, "^([%w_]+)%.([%w_]+)$")
  if (library and type(_G[library]) == "table" and _G[library][field]) or _G[name] then
    return puts(name .. " has no documentation here; Lua's own functions: https://www.lua.org/manual/5.4/manual.html")
  end
  error(format("h: nothing here has the name %s; h() shows what there is", inspect(name)), 0)
end

--- v([line])
-- Returns the values that a line at the prompt has returned: the latest one, or the one of that number.
-- A negative number counts back from the present line.  The values of 100 lines are kept.
local function value_of(results, latest, line)
  local at = line or latest
  if at and at < 0 then at = results.line + at end
  local values = at and results[at]
  if not values then
    error(format("v: there is no value of line %s; kept are those of the latest %d lines", at or "0", KEPT), 0)
  end
  return unpack(values, 1, values.n)
end

--- i(value)
-- Shows what a value is: its type, and what there is to know of it.
local function i(value)
  local kind, facts = type(value), {}
  local function add(name, text) facts[#facts + 1] = format("%-12s %s", name, text) end
  add("type", mathtype(value) or kind == "userdata" and match(tostring(value), "^<") and "pid or reference" or kind)
  if kind == "string" then
    add("bytes", #value)
    add("characters", utf8len(value) or "not UTF-8")
    if whereis(value) then add("whereis", inspect(whereis(value))) end
  elseif kind == "table" then
    local n = 0
    for _ in next, value do n = n + 1 end
    add("items", n)
    add("in a list", rawlen(value))
    add("metatable", getmetatable(value) and "yes" or "no")
  elseif kind == "userdata" then
    local ok, info = pcall(process_info, value)
    for _, key in ipairs({"what", "name", "kind", "state", "mailbox", "memory", "leader", "links", "monitors"}) do
      if ok and info and info[key] ~= nil then add(key, type(info[key]) == "string" and info[key] or inspect(info[key])) end
    end
    if ok and not info then add("process", "has ended") end
  end
  local name = (kind == "function" or kind == "table") and name_of(value)
  if name then add("name", name) end
  for _, row in ipairs(name and rows_of(name) or {}) do add("usage", (gsub(row.usage, "\n", " · "))) end
  puts(concat(facts, "\n"))
end

--- r(module)
-- Loads a module again from its file, and returns it; global variables that have the module get the new one.
local function r(module)
  local old = package.loaded[module]
  package.loaded[module] = nil
  local ok, new = pcall(require, module)
  if not ok then
    package.loaded[module] = old
    error(new, 0)
  end
  for key, value in next, _G do
    if old ~= nil and rawequal(value, old) then _G[key] = new end
  end
  return new
end

--- flush()
-- Shows all messages in the mailbox, and removes them.
local function flush()
  while true do
    local message = pack(receive(0))
    if message.n == 1 and message[1] == nil then return end
    puts(inspect({unpack(message, 1, message.n)}))
  end
end

-- The functions and the results of one evaluator.  results has the packed values by line, and line, the present one.
local function add_functions(results)
  _G.flush, _G.i, _G.r, _G.h, _G.help = flush, i, r, h, h
  _G.v = function(line) return value_of(results, results.latest, line) end
end

local function keep(results, view, values)
  results[view.line], results[view.line - KEPT] = values, nil
  results.latest = view.line
  _G._ = values[1]
end

-- --- evaluation -----------------------------------------------------------------------------------------------

local ERROR_MAX <const> = 65536 -- bytes of an error's text that are shown

local function text_of(reason)
  local text = type(reason) == "string" and reason or inspect(reason)
  return #text <= ERROR_MAX and text or format("%s... and %d bytes more", sub(text, 1, ERROR_MAX), #text - ERROR_MAX)
end

-- The part of a traceback between the error and the chunk, with the chunk; nothing when the chunk has made the error,
-- or called a function of the shell that has.
local function calls_of(trace)
  local calls, own = {}, 0
  for line in gmatch(trace or "", "\n(\t[^\n]+)") do
    if find(line, "^\t%[C%]: in .*'traced'") then break end
    if find(line, OWN_FILE, 1, true) then own = #calls + 1 end
    if #calls > 0 or not find(line, "^\t%[C%]: in function 'error'") then calls[#calls + 1] = line end
  end
  return #calls > 1 and own == 0 and "\n" .. concat(calls, "\n") or ""
end

-- Names functions that have one, and libraries, which show no items since they are read-only views.
local function namer()
  local names, libraries
  return function(value)
    names = names or all_names()
    local name = names[value]
    if type(value) == "function" or not name then return name end
    if not libraries then
      libraries = {}
      for loaded in pairs(package.loaded) do libraries[loaded] = true end
      for _, row in ipairs(functions()) do libraries[match(row.name, "^([%w_]+)%.") or 0] = true end
    end
    return libraries[name] and name
  end
end

local function outcome(results, view, ok, ...)
  local values = pack(...)
  if not ok then return "error", text_of(values[1]) .. calls_of(values[2]) end
  if view and view.json then return "values", unpack(values, 1, values.n) end
  if values.n == 0 then return "done" end
  if view then
    keep(results, view, values)
    view.name = namer()
    return "value", pretty.text(values, view)
  end
  for n = 1, values.n do values[n] = inspect(values[n]) end
  return "value", concat(values, ", ")
end

-- Does the code end in the middle of a statement?  A quoted string ends on its line, unless a
-- backslash ends the line.
local function breaks_off(why, code)
  return find(why, "<eof>$") and (find(code, "\\$") or not find(why, "unfinished string near <eof>$"))
end

-- Words that are a line of their own at the prompt.
local function command(word)
  if word == "exit" or word == "quit" and _G.quit == nil then return "leave" end
  if word == "help" and rawequal(_G.help, h) then return outcome(nil, nil, pcall(h)) end
end

-- As a person who comes from iex types them: "h node.spawn", "i x", "r counter".
local WITHOUT_PARENTHESES <const> = {h = 'h("%s")', help = 'help("%s")', r = 'r("%s")', i = "i(%s)"}

local function with_parentheses(code)
  local word, name = match(code, "^%s*(%l+)%s+([%a_][%w_.]*)%s*$")
  local form = word and WITHOUT_PARENTHESES[word]
  return form and format(form, name) or code
end

-- Says once that a local variable does not last.
local function tell_of_local(results, code, what)
  if results.told or what ~= "done" or not find(code, "^%s*local%s") then return end
  results.told = true
  puts("note: a local variable ends with its line; without \"local\" it stays")
end

-- An expression returns its values; "more" says that the code ends in the middle of a statement.
local function evaluate(results, code, name, view)
  local prompt = view and view.line
  if prompt then
    results.line = view.line
    local what, text = command(match(code, "^%s*(%l+)%s*$"))
    if what then return what, text end
    code = with_parentheses(code)
  end
  local chunk, no_value = load("return " .. code, name)
  local why
  if not chunk then chunk, why = load(code, name) end
  if chunk and not prompt then return outcome(results, view, traced(chunk)) end
  if chunk then
    local what, text = outcome(results, view, traced(chunk))
    tell_of_local(results, code, what)
    return what, text
  end
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
  local before, quoted = match(gsub(strings, "%b''", ""), "^(.*)[\"']([^\"']*)$")
  if quoted then
    local loads = find(before, "%f[%w_]require%s*%(?%s*$") or find(before, "%f[%w_][rh]%s*%(%s*$")
    return quoted, loads and modules() or names()
  end
  local path, word = match(line, "([%w_%.:]-)([%a_]?[%w_]*)$")
  return word, find(path, "[%.:]$") and fields(path) or globals()
end

-- The documentation of the function that the line calls, or names in full: a list of lines.
local function notes(line)
  local lines, name = {}, match(line, "([%a_][%w_.]*)%(?$")
  for _, row in ipairs(name and rows_of(name) or {}) do
    for usage in gmatch(row.usage, "[^\n]+") do lines[#lines + 1] = usage end
    lines[#lines + 1] = "    " .. row.sentence
  end
  return lines
end

local WORDS_MAX <const> = 200

-- Of a long sorted list only the first words, and the last one, so that what all words begin with stays the same; and
-- a line that says so, unless they all go on from the typed bytes with the same one.
local function shorten(list, typed)
  local n, short = #list, {unpack(list, 1, WORDS_MAX - 1)}
  short[WORDS_MAX] = list[n]
  if sub(list[1], 1, typed + 1) == sub(list[n], 1, typed + 1) then return short, {} end
  return short, {format("%d names; the first %d and the last:", n, WORDS_MAX - 1)}
end

local function complete(line)
  if find(line, "[%w_]%($") then return "words", 0, {}, notes(line) end
  local word, found = candidates(line)
  local list = {}
  for name in pairs(found) do
    if sub(name, 1, #word) == word then list[#list + 1] = name end
  end
  sort(list)
  if #list > WORDS_MAX then return "words", #word, shorten(list, #word) end
  return "words", #word, list, #list == 1 and list[1] == word and notes(line) or {}
end

-- --- the evaluator --------------------------------------------------------------------------------------------

-- An interrupt is an error that evaluate catches, as a rule.  One that comes just before or after that is caught here.
local function evaluator(client, keeper)
  local current -- the number of the evaluation whose outcome is not yet known
  local results = {line = 0}
  group_leader(client)
  add_functions(results)

  local function serve()
    local _, what, n, text, name, view = receive_match({keeper})
    if what == "eval" then
      current = n
      local outcome = pack(evaluate(results, text, name, view))
      current = nil
      local sent, why = pcall(send, client, "shell", n, unpack(outcome, 1, outcome.n))
      if not sent then send(client, "shell", n, "error", text_of(why)) end -- a value that no message can have
      send(keeper, "idle", n)
    elseif what == "complete" then
      local ok, _, length, list, lines = pcall(complete, text)
      send(client, "shell", n, "words", ok and length or 0, ok and list or {}, ok and lines or {})
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
    local what, a, b, c, d = receive()
    if what == "eval" or what == "complete" then
      if what == "eval" then busy = a end
      send(worker, me, what, a, b, c, d)
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
