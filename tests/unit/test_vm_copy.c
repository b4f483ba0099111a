/* Encoding of terms: no code of a process runs during an encoding, and an encoding within an encoding is
 * refused. */
#include "tap.h"
#include "vm_host.h"

#include "vm/copy/copy.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"

#include <lua.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* --- the writer, in an isolate made by hand --- */

/* A term of the values on the stack. */
static struct term *copy_stack(lua_State *L) {
  struct copy c = copy_begin(L);
  int n = lua_gettop(L);
  copy_out(&c, "message", 1, n);
  return copy_end(&c, (uint32_t)n);
}

static int nested(lua_State *L) {
  struct copy outer = copy_begin(L);
  size_t at = term_open(outer.w, TERM_LIST);
  term_unref(copy_stack(L));
  term_set_count(outer.w, at, 0);
  term_unref(copy_end(&outer, 1));
  return 0;
}

static int abandoned(lua_State *L) {
  struct copy c = copy_begin(L);
  term_put_text(c.w, "left behind");
  return luaL_error(L, "abandoned");
}

static int alone(lua_State *L) {
  struct term *t = copy_stack(L);
  bool whole = t->count == 1 && term_is_word(t, "text");
  term_unref(t);
  lua_pushboolean(L, whole);
  return 1;
}

/* "true" or "false" when the function returned; else its error.  The text lives on the stack. */
static const char *call(lua_State *L, lua_CFunction f) {
  lua_settop(L, 0);
  lua_pushcfunction(L, f);
  lua_pushliteral(L, "text");
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) return lua_tostring(L, -1);
  return lua_toboolean(L, -1) ? "true" : "false";
}

static void test_writer(void) {
  struct isolate *iso = calloc(1, sizeof *iso);
  struct process p = {.isolate = iso};
  heap_init(&iso->heap);
  lua_State *L = lua_newstate(heap_alloc, &iso->heap);
  *(struct process **)lua_getextraspace(L) = &p;
  is(call(L, nested), "another message was begun before the end of this one",
     "an encoding in which another one began is refused");
  is(call(L, abandoned), "abandoned", "an error leaves an encoding");
  is(call(L, alone), "true", "and the next one is whole");
  lua_close(L);
  term_writer_finish(&iso->writer);
  heap_finish(&iso->heap);
  free(iso);
}

/* --- every binding --- */

static struct host *host;

/* A value with every metamethod a process can set: each sends a message to the process itself.  drained()
 * counts those messages, and says "damaged" when one is not as it was sent; at last a message goes round. */
static const char evil_source[] =
    "local me = self()\n"
    "local function act() send(me, 'inner', {word = 'zz', 1}, 2.5) %s end\n"
    "local meta = {__name = 'evil'}\n"
    "function meta.__len() act() return 3 end\n"
    "function meta.__index(_, k) act() return k == 3 and '' or 'a' end\n"
    "function meta.__newindex() act() end\n"
    "function meta.__pairs(t) act() return next, {}, nil end\n"
    "function meta.__tostring() act() return 'text' end\n"
    "function meta.__concat() act() return 'text' end\n"
    "function meta.__call() act() return 'text' end\n"
    "function meta.__close() act() end\n"
    "for _, name in ipairs{'__eq', '__lt', '__le'} do meta[name] = function() act() return true end end\n"
    "local function evil(t) return setmetatable(t or {}, meta) end\n"
    "local function drained()\n"
    "  local n = 0\n"
    "  while true do\n"
    "    local kind, list, number, more = receive(0)\n"
    "    if kind == nil then break end\n"
    "    if kind == 'inner' then\n"
    "      if list.word ~= 'zz' or list[1] ~= 1 or number ~= 2.5 or more ~= nil then return 'damaged' end\n"
    "      n = n + 1\n"
    "    end\n"
    "  end\n"
    "  send(me, 'whole', {1, {2}})\n"
    "  local word, list = receive()\n"
    "  return word == 'whole' and list[2][1] == 2 and n or 'damaged'\n"
    "end\n"
    "local function none() end\n"
    "pcall(function() %s end)\n"
    "local n = drained() puts(n == 0 and 'none' or n == 'damaged' and n or 'some')\n";

static void run(const char *act, const char *call, const char *want) {
  char code[4096];
  snprintf(code, sizeof code, evil_source, act, call);
  char *got = host_run(host, code);
  is(got, want, "%s, where a metamethod does: send(…) %s", call, act);
  free(got);
}

/* Bindings that take data read it without metamethods. */
static const char *const takes_data[] = {
    "exec(evil())",
    "exec(evil{'true', monitor = true})",
    "exec(evil{[0] = 'x'})",
    "exec{'true', env = evil{A = 'b'}}",
    "exec{'true', env = {A = evil()}}",
    "exec{'true', cwd = evil()}",
    "exec{'true', timeout = evil()}",
    "exec{evil(), 'x'}",
    "send(me, evil{'x', {1}})",
    "send(me, {[evil()] = evil()})",
    "send(evil(), 'x')",
    "send(evil{'name', 'far@there'}, evil{'x'})",
    "send({'name', evil()}, 'x')",
    "send_after(evil(), me, 'x')",
    "send_after(0, me, evil{'x'}) receive()",
    "spawn(none, evil{'x'})",
    "spawn(evil)",
    "spawn_monitor(function() return evil end)",
    "node.spawn('far@there', none, evil{'x'})",
    "node.spawn('far@there', evil())",
    "trap_exit(true) exit(me, evil{'x'}) receive()",
    "spawn_monitor(function() error(evil()) end) receive()",
    "error(evil())",
    "xpcall(error, evil(), 'x')",
    "string.rep(evil(), 3)",
    "load(evil())",
    "exit(spawn(receive), evil{'x'})",
    "receive_match(evil{'x'}, 0)",
    "receive_match({evil()}, 0)",
    "inspect(evil{'x', {evil()}})",
    "register(evil(), me)",
    "register('name', evil())",
    "global.register_name('name', evil())",
    "global.send('name', evil())",
    "monitor(evil())",
    "link(evil())",
    "group_leader(evil())",
    "process_info(evil())",
    "node.monitor(evil())",
    "cancel_timer(evil())",
    "sleep(evil())",
    "alive(evil())",
    "io.write(evil())",
    "require(evil())",
    "ls(evil())",
    "rawset(evil(), 1, 2)",
    "rawlen(evil())",
    "setmetatable(evil(), nil)",
};

/* Functions that convert values to text, or work on tables as Lua does, call the metamethods of values. */
static const char *const calls_back[] = {
    "puts(me, evil())",
    "puts(me, evil(), evil())",
    "tostring(evil())",
    "string.format('%s %s', evil(), evil())",
    "table.concat(evil(), ',')",
    "table.unpack(evil())",
    "table.insert(evil(), 'x')",
    "table.remove(evil())",
    "table.move(evil(), 1, 3, 1, {})",
    "table.sort({evil(), evil(), evil()})",
    "local x <close> = evil()",
#if LUA_VERSION_RELEASE_NUM > LUA_VERSION_NUM * 100 + 4 || !defined LUA_IS_CHECKED
    /* the fault that lua/concat.c repairs */
    "local x = evil() .. 'x'",
#endif
    "local x = evil() == evil()",
    "local x = evil() < evil()",
    "local x = #evil()",
    "evil()()",
    "for _ in pairs(evil()) do end",
    "for _, v in ipairs(evil()) do break end",
    "string.gsub('x', 'x', evil())",
};

/* Further actions of the metamethod. */
static const char *const acts[] = {
    "",
    "error('x')",
    "sleep(0)",
    "pcall(exec, {'no-such-command'})",
    "send({'name', 'far@there'}, {1})",
    "spawn(function() end, {})",
    "puts(me, 'x')",
};

static void test_bindings(void) {
  for (size_t i = 0; i < sizeof takes_data / sizeof *takes_data; i++) run("", takes_data[i], "none\n");
  for (size_t i = 0; i < sizeof calls_back / sizeof *calls_back; i++)
    for (size_t j = 0; j < sizeof acts / sizeof *acts; j++) run(acts[j], calls_back[i], "some\n");
  char *got = host_run(host, "puts(setmetatable({}, {__tostring = function() exit('x') end}))");
  is(got, "[x]", "a metamethod may end its process");
  free(got);
}

int main(void) {
  test_writer();
  host = host_new(2, 0, NULL);
  test_bindings();
  host_free(host);
  return tap_end();
}
