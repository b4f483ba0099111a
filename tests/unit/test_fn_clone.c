/* Spawns within an isolate: a function that has captured a graph of tables and functions is cloned, if its
 * arguments are scalars, and encoded otherwise.  Both ways, and a message, make the same graph. */
#include "tap.h"
#include "vm_host.h"

#include "vm/process/isolate.h"
#include "vm/vm.h"
#include "vm/sched/state.h"

#include <stdlib.h>
#include <string.h>

static struct host *host;

static void run(const char *what, const char *code, const char *want) {
  char *got = host_run(host, code);
  is(got, want, "%s", what);
  free(got);
}

/* graph(seed, size): a list of tables and functions that refer to each other, from a seed.  dump(root): what
 * is reached from it, with a number for each object; a function returns what it has captured.  Then each
 * function changes one of its variables, and all is written again, which shows who shares variables. */
#define PRELUDE                                                                                              \
  "local me, format = self(), string.format\n"                                                               \
  "local function changer(a, b)\n"                                                                           \
  "  return function(new) if new then a = new end return a end,\n"                                           \
  "    function(new) if new then b = {new, a} end return b, a end,\n"                                        \
  "    function(new) if new then a, b = b, new end return a, format('%s', type(b)), own end\n"               \
  "end\n"                                                                                                    \
  "local function graph(seed, size)\n"                                                                       \
  "  local function rnd(n) seed = (seed * 1103515245 + 12345) % 2147483648 return seed // 65536 % n + 1 "    \
  "end\n"                                                                                                    \
  "  local all = {}\n"                                                                                       \
  "  local leaves = {1, -2.5, 'text', true, print, string, _G, self(), math.huge, ('s'):rep(50), false, 7, " \
  "1 << 60}\n"                                                                                               \
  "  local function any() return rnd(3) > 1 and all[rnd(#all)] or leaves[rnd(#leaves)] end\n"                \
  "  all[1] = {}\n"                                                                                          \
  "  while #all < size do\n"                                                                                 \
  "    if rnd(2) == 1 then all[#all + 1] = {any(), any(), k = any()}\n"                                      \
  "    else local f, g, h = changer(any(), any()) all[#all + 1], all[#all + 2], all[#all + 3] = f, g, h "    \
  "end\n"                                                                                                    \
  "  end\n"                                                                                                  \
  "  for i, v in ipairs(all) do\n"                                                                           \
  "    if type(v) == 'table' then\n"                                                                         \
  "      for k = 1, rnd(6) do v[rnd(9)] = any() end\n"                                                       \
  "      for k = 1, rnd(3) do v[any() or 'no'] = any() end\n"                                                \
  "      if rnd(4) == 1 then setmetatable(v, {__index = any(), __mode = rnd(3) == 1 and 'k' or nil, x = "    \
  "any()}) end\n"                                                                                            \
  "    elseif rnd(3) == 1 then v(any()) end\n"                                                               \
  "  end\n"                                                                                                  \
  "  return all\n"                                                                                           \
  "end\n"                                                                                                    \
  "local function dump(root)\n"                                                                              \
  "  local ids, order, out = {}, {}, {}\n"                                                                   \
  "  local function name(v)\n"                                                                               \
  "    local t = type(v)\n"                                                                                  \
  "    if v == _G then return 'globals' end\n"                                                               \
  "    if t ~= 'table' and t ~= 'function' then return t .. ':' .. tostring(v) end\n"                        \
  "    if v == print or v == string then return tostring(v) end\n"                                           \
  "    if not ids[v] then order[#order + 1] = v ids[v] = #order end\n"                                       \
  "    return '#' .. ids[v]\n"                                                                               \
  "  end\n"                                                                                                  \
  "  name(root)\n"                                                                                           \
  "  local i = 0\n"                                                                                          \
  "  while i < #order do\n"                                                                                  \
  "    i = i + 1\n"                                                                                          \
  "    local v, line = order[i], {}\n"                                                                       \
  "    if type(v) == 'function' then\n"                                                                      \
  "      local r = table.pack(v()) for k = 1, r.n do line[k] = name(r[k]) end\n"                             \
  "    else\n"                                                                                               \
  "      for _, k in ipairs{1, 2, 3, 4, 5, 6, 7, 8, 9, 'k', 'x', '__mode', '__index', true, 'text', -2.5} "  \
  "do\n"                                                                                                     \
  "        line[#line + 1] = name(rawget(v, k))\n"                                                           \
  "      end\n"                                                                                              \
  "      for k = 10, rawlen(v) do line[#line + 1] = name(rawget(v, k)) end\n"                                \
  "      line[#line + 1] = 'meta ' .. name(getmetatable(v))\n"                                               \
  "    end\n"                                                                                                \
  "    out[#out + 1] = i .. ' ' .. type(v) .. ' ' .. table.concat(line, ' ')\n"                              \
  "  end\n"                                                                                                  \
  "  for i, t in ipairs(order) do\n"                                                                         \
  "    if type(t) == 'table' then\n"                                                                         \
  "      local line, n = {}, 0\n"                                                                            \
  "      for k, v in next, t do n = n + 1 if ids[k] then line[#line + 1] = format('%4d=%s', ids[k], "        \
  "name(v)) end end\n"                                                                                       \
  "      table.sort(line) out[#out + 1] = i .. ' has ' .. n .. ' ' .. table.concat(line, ' ')\n"             \
  "    end\n"                                                                                                \
  "  end\n"                                                                                                  \
  "  return table.concat(out, '\\n'), order\n"                                                               \
  "end\n"                                                                                                    \
  "local function dumps(root)\n"                                                                             \
  "  own = 'mine'\n"                                                                                         \
  "  local before, order = dump(root)\n"                                                                     \
  "  for i, f in ipairs(order) do if type(f) == 'function' then f(i) end end\n"                              \
  "  return before .. '\\n' .. dump(root)\n"                                                                 \
  "end\n"

static void test_same(void) {
  run("graphs from seeds, of all sizes",
      PRELUDE
      "local wrong, bytes = 0, 0\n"
      "for seed = 1, 300 do\n"
      "  local all = graph(seed, seed % 50 + (seed % 10 == 0 and 300 or 1))\n"
      "  own = nil local before = dump(all)\n"
      "  local function f() send(me, dumps(all)) end\n"
      "  spawn(f) local cloned = receive()\n"
      "  spawn(f, {}) local encoded = receive()\n"
      "  send(me, f) local g = receive() g() local received = receive()\n"
      "  own = nil if dump(all) ~= before then puts('seed ' .. seed .. ' was changed') end\n"
      "  own = nil\n"
      "  local as_is = dumps(all)\n"
      "  if cloned ~= as_is or encoded ~= as_is or received ~= as_is then\n"
      "    wrong = wrong + 1 puts('seed', seed, cloned == as_is, encoded == as_is, received == as_is)\n"
      "  end\n"
      "  bytes = bytes + #as_is\n"
      "end\n"
      "puts(wrong, bytes > 300000)\n",
      "0\ttrue\n");
  run("what cannot be sent has the same error both ways",
      PRELUDE
      "local file = io.open('/dev/null')\n"
      "local it = ('x'):gmatch('x')\n"
      "local gc = {} local finalized = setmetatable({}, gc) gc.__gc = print\n"
      "for _, bad in ipairs{{file}, {[file] = 1}, {it}, {finalized}, {function() return file end}} do\n"
      "  local function f() return bad end\n"
      "  local ok, a = pcall(spawn, f) local _, b = pcall(spawn, f, {}) puts(ok, a == b, #a > 20)\n"
      "end\n",
      "false\ttrue\ttrue\nfalse\ttrue\ttrue\nfalse\ttrue\ttrue\nfalse\ttrue\ttrue\nfalse\ttrue\ttrue\n");
}

/* Who holds the copy pays for it. */
static void test_memory(void) {
  run("the copy is the new process's own",
      "local t, pids, me = {}, {}, self() for i = 1, 1000 do t[i] = i / 2 end\n"
      "local function size(p) return process_info(p).memory end\n"
      "local before = size(me)\n"
      "for i = 1, 50 do pids[i] = spawn(function() send(me, 'here') receive() return t end) receive() end\n"
      "local least = math.huge for _, p in ipairs(pids) do least = math.min(least, size(p)) end\n"
      "puts(least > 16000, size(me) - before < 300000)\n"
      "for _, p in ipairs(pids) do exit(p, 'kill') end\n",
      "true\ttrue\n");
}

/* How many encodings the isolate in which the process of this pid lives has begun. */
static uint32_t encodings(const char *pid) {
  uint64_t number = strtoull(strchr(pid, '.') + 1, NULL, 10);
  struct ptab_slot *slot = ptab_find(&host->vm->ptab, number);
  return isolate_of_runnable(atomic_load(&slot->owner))->encodings;
}

/* The encodings of 100 spawns by the witness, a process that waits in between. */
static uint32_t spawn_100(const char *witness, const char *argument) {
  char code[200];
  snprintf(code, sizeof code, "send(whereis('witness'), self(), %s) receive() puts('done')", argument);
  uint32_t before = encodings(witness);
  free(host_run(host, code));
  return encodings(witness) - before;
}

static void test_ways(void) {
  char *witness =
      host_run(host, "local p = spawn(function()\n"
                     "  local own = {} for i = 1, 20 do own[i] = function() return i end end\n"
                     "  while true do\n"
                     "    local from, argument = receive()\n"
                     "    for i = 1, 100 do spawn(function() return own end, argument) sleep(1) end\n"
                     "    send(from, 'done')\n"
                     "  end\n"
                     "end)\n"
                     "register('witness', p) puts(p)");
  uint32_t cloned = spawn_100(witness, "1"), encoded = spawn_100(witness, "{}");
  ok(cloned < 50 && encoded >= 100, "a small graph is cloned (%u encodings), but not beside tables (%u)",
     cloned, encoded);
  free(witness);
}

int main(void) {
  host = host_new(1, 0, NULL);
  test_same();
  test_memory();
  test_ways();
  host_free(host);
  return tap_end();
}
