-- pretty: values as text for a terminal, over several lines where they do not fit into one.
--
--   pretty.text(values, view)
--
-- values is a list as of table.pack.  view has the fields width (columns), colours and ascii (show nothing but ASCII),
-- the latter two booleans, and may have name, a function that returns the name of a function or a library, or nil.
-- What is shown is bounded: items of a table, items of all, the depth, and the length of a string; "…" stands for the
-- rest, all of which inspect shows.  As inspect does, it calls no metamethod.

local type <const>, next <const>, inspect <const>, rawlen <const> = type, next, inspect, rawlen
local rawget <const>, mathtype <const> = rawget, math.type
local concat <const>, sort <const>, rep <const>, sub <const> = table.concat, table.sort, string.rep, string.sub
local gsub <const>, format <const>, find <const>, byte <const> = string.gsub, string.format, string.find, string.byte
local utf8len <const>, utf8offset <const> = utf8.len, utf8.offset

local pretty = {}

local ITEMS <const>, ALL <const>, DEPTH <const>, STRING <const> = 100, 1000, 6, 2000
local SHORT <const> = 30 -- columns of an item of a list that stands on a line with others
local SCAN <const> = 10000 -- keys of one table that are looked at, of which those in order are shown
local COLOURS <const> = {string = "32", number = "33", boolean = "35", ["nil"] = "35", userdata = "36", rest = "2"}

-- A tree: a leaf has text and colour, a table has items, each with a key (text) and a node; all have width, that of
-- the text in one line.

local function escape(c) return gsub(c, ".", function(b) return format("\\x%02x", byte(b)) end) end

local function leaf(text, kind, view)
  text = gsub(text, "\194[\128-\159]", escape) -- control characters, which inspect leaves
  if view.ascii then text = gsub(gsub(text, "…", "..."), "[\128-\255]", escape) end
  return {text = text, colour = COLOURS[kind], width = utf8len(text) or #text}
end

local function cut(s)
  if #s <= STRING then return s, false end
  local at = STRING + 1
  while at > STRING - 3 and find(sub(s, at, at), "[\128-\191]") do at = at - 1 end -- not within a character
  return sub(s, 1, at - 1), true
end

local function less(a, b)
  local ta, tb = type(a), type(b)
  if ta == tb and (ta == "number" or ta == "string") then return a < b end
  if ta ~= tb and (ta == "number" or tb == "number") then return ta == "number" end
  return ta ~= tb and ta == "string"
end

-- The keys that are not in the list of n items, in order; true when there are more.
local function other_keys(t, n, room)
  local keys, scanned = {}, 0
  for key in next, t do
    scanned = scanned + 1
    if scanned > SCAN + n or scanned > 10 * SCAN then break end
    if not (mathtype(key) == "integer" and key >= 1 and key <= n) then keys[#keys + 1] = key end
  end
  sort(keys, less)
  local more = #keys > room or scanned > SCAN + n or scanned > 10 * SCAN
  for i = #keys, room + 1, -1 do keys[i] = nil end
  return keys, more
end

local function named(kind, value, view)
  local name = view.name and view.name(value)
  return name and find(name, "^[%w_.-]+$") and format("<%s %s>", kind, name)
end

local tree

local function branch(t, view, state, depth)
  if state.open[t] then return leaf("{cycle}", "rest", view) end
  if next(t) == nil then return leaf(named("library", t, view) or inspect(t), nil, view) end
  if depth > DEPTH then return leaf("{…}", "rest", view) end
  local node, n = {items = {}, width = 2}, rawlen(t)
  local function add(key, value)
    state.left = state.left - 1
    local child = tree(value, view, state, depth + 1)
    local item = {key = key, node = child}
    node.items[#node.items + 1] = item
    node.width = node.width + child.width + (key and (utf8len(key) or #key) + 3 or 0) + (#node.items > 1 and 2 or 0)
  end
  local function room() return #node.items < ITEMS and state.left > 0 end
  state.open[t] = true
  local listed = 0
  while listed < n and room() do
    listed = listed + 1
    add(nil, rawget(t, listed))
  end
  local keys, more = {}, listed < n
  if not more then keys, more = other_keys(t, n, ITEMS - #node.items) end
  for i = 1, #keys do
    local key = keys[i]
    if not room() then
      more = true
      break
    end
    local text = type(key) == "string" and #key < 100 and find(inspect({[key] = 1}), "^{[%a_]") and key
    add(text or "[" .. leaf(inspect(type(key) == "string" and cut(key) or key), nil, view).text .. "]", rawget(t, key))
  end
  state.open[t] = nil
  if more then
    local rest = leaf("…", "rest", view)
    node.items[#node.items + 1] = {node = rest}
    node.width = node.width + rest.width + 2
  end
  return node
end

function tree(value, view, state, depth)
  local kind = type(value)
  if kind == "table" then return branch(value, view, state, depth) end
  if kind == "function" then return leaf(named(kind, value, view) or inspect(value), kind, view) end
  if kind ~= "string" then return leaf(inspect(value), kind, view) end
  local text, shorter = cut(value)
  return leaf(inspect(text) .. (shorter and "…" or ""), kind, view)
end

-- Writes a tree; used: the columns before it and behind it on its line.
local function put(out, node, view, indent, used)
  if not node.items then
    local colour = view.colours and node.colour
    out[#out + 1] = colour and "\27[" .. colour .. "m" .. node.text .. "\27[0m" or node.text
    return
  end
  local flat = indent + used + node.width <= view.width
  local inner, filled = indent + 2, 0 -- the columns of a line of short items; 0: there is none
  out[#out + 1] = "{"
  for i = 1, #node.items do
    local item = node.items[i]
    local short = not flat and not item.key and not item.node.items and item.node.width <= SHORT
    local beside = short and filled > 0 and filled + item.node.width + 3 <= view.width
    filled = short and (beside and filled + 2 or inner) + item.node.width or 0
    if i > 1 then out[#out + 1] = (flat or beside) and ", " or "," end
    if not flat and not beside then out[#out + 1] = "\n" .. rep(" ", inner) end
    if item.key then out[#out + 1] = item.key .. " = " end
    put(out, item.node, view, flat and 0 or inner, flat and -1000000 or (item.key and #item.key + 3 or 0) + 1)
  end
  out[#out + 1] = flat and "}" or "\n" .. rep(" ", indent) .. "}"
end

function pretty.text(values, view)
  local state = {open = {}, left = ALL}
  local trees, width, out = {}, 0, {}
  for i = 1, values.n do
    trees[i] = tree(values[i], view, state, 0)
    width = width + trees[i].width + 2
  end
  local flat = width - 2 <= view.width
  for i = 1, #trees do
    if i > 1 then out[#out + 1] = flat and ", " or ",\n" end
    put(out, trees[i], view, 0, flat and -1000000 or 1)
  end
  return concat(out)
end

return pretty
