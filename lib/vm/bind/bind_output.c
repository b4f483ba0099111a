/* Output is a message to the group leader.  A process that has sent VM_OUTPUT_WINDOW bytes since its last
 * "flush" makes that call, and waits for the reply, which comes when the leader has handled all output before
 * it. */
#include "vm/bind/bind.h"

#include "core/output.h"
#include "vm/copy/copy.h"
#include "vm/process/process.h"
#include "vm/stdlib/yielding.h"

#include <string.h>

static int flushed(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  bool ok;
  lua_pop(L, bind_reply(L, &ok)); /* a leader that has ended refuses the call: output to it is dropped */
  return 0;
}

/* Sends output of the running process to a leader, and waits when VM_OUTPUT_WINDOW bytes have been sent since
 * the last flush.  To be used as `return put_bytes(…)`. */
static int put_bytes(lua_State *L, npid leader, const char *bytes, size_t len) {
  struct process *p = process_of(L);
  struct output o = {.from = p->pid, .bytes = bytes, .n = len};
  struct copy c = copy_begin(L);
  output_put(c.w, &o);
  bind_signal(L, SIGNAL_MESSAGE, leader, NPID_NONE, copy_end(&c, output_values(&o)));
  p->output = len > UINT32_MAX - p->output ? UINT32_MAX : p->output + (uint32_t)len;
  if (p->output < VM_OUTPUT_WINDOW || leader == p->pid || !lua_isyieldable(L)) return 0;
  p->output = 0;
  return bind_call(L, leader, term_build("s", "flush"), flushed, 0);
}

/* Pushes the texts from index 2 on, joined by tabs, with a newline at the end. */
static const char *join(lua_State *L, size_t *len) {
  int top = lua_gettop(L), n = top - 1;
  luaL_checkstack(L, 2 * n + 8, "too many values");
  for (int i = 2; i <= top; i++) {
    lua_pushvalue(L, i);
    if (i < top) lua_pushliteral(L, "\t");
  }
  lua_pushliteral(L, "\n");
  lua_concat(L, lua_gettop(L) - top);
  return lua_tolstring(L, -1, len);
}

static int put_next(lua_State *L, int status, lua_KContext i);

/* Sends the values from index 2 on to the leader at index 1.  The values before index i are texts already. */
static int put_values(lua_State *L, int i) {
  size_t len;
  int last = lua_gettop(L);
  for (; i <= last; i++)
    if (yielding_text(L, i, i, put_next)) yielding_text_done(L, i);
  const char *bytes = join(L, &len);
  return put_bytes(L, copy_to_npid(L, 1), bytes, len);
}

static int put_next(lua_State *L, int status, lua_KContext i) {
  (void)status;
  yielding_text_done(L, (int)i);
  return put_values(L, (int)i + 1);
}

static int print(lua_State *L) {
  luaL_checkstack(L, 8, "too many values");
  copy_push_npid(L, process_of(L)->leader);
  lua_insert(L, 1);
  return put_values(L, 2);
}

/* puts(leader, …) needs a value behind the leader: a pid alone is a value to print. */
static int puts_values(lua_State *L) {
  npid leader = lua_gettop(L) > 1 ? bind_to_pid(L, 1) : NPID_NONE;
  return leader == NPID_NONE ? print(L) : put_values(L, 2);
}

static int inspect(lua_State *L) {
  luaL_checkany(L, 1);
  bind_inspect(L, 1);
  return 1;
}

static void set_text(lua_State *L, const char *key, const char *text) {
  lua_pushstring(L, text);
  lua_setfield(L, -2, key);
}

static int functions(lua_State *L) {
  lua_Integer n = 0;
  lua_newtable(L);
  for (const struct bind_library *library = bind_libraries; library->functions; library++) {
    for (const struct bind_function *f = library->functions; f->name; f++) {
      lua_createtable(L, 0, 3);
      lua_pushfstring(L, "%s%s%s", library->name, *library->name ? "." : "", f->name);
      lua_setfield(L, -2, "name");
      set_text(L, "usage", f->usage);
      set_text(L, "sentence", f->sentence);
      lua_rawseti(L, -2, ++n);
    }
  }
  return 1;
}

static int group_leader(lua_State *L) {
  struct process *p = process_of(L);
  if (lua_isnoneornil(L, 1)) {
    copy_push_npid(L, p->leader);
    return 1;
  }
  npid leader = bind_check_pid(L, 1), of = lua_isnoneornil(L, 2) ? p->pid : bind_check_pid(L, 2);
  bind_signal(L, SIGNAL_LEADER, of, NPID_NONE, term_build("p", leader));
  lua_pushboolean(L, 1);
  return 1;
}

/* io.write writes to the group leader: a process has no standard output. */
int bind_write(lua_State *L) {
  size_t len;
  luaL_Buffer b;
  int n = lua_gettop(L);
  luaL_buffinit(L, &b);
  for (int i = 1; i <= n; i++) {
    luaL_checkstring(L, i);
    lua_pushvalue(L, i);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  const char *bytes = lua_tolstring(L, -1, &len);
  return put_bytes(L, process_of(L)->leader, bytes, len);
}

const struct bind_function bind_output[] = {
    {"print", print, "print(...)",
     "Writes the values as a line, with tabs between them, to the group leader."},
    {"puts", puts_values, "puts(...)\nputs(pid, ...)",
     "Writes the values as a line, with tabs between them, to the group leader, or to the process given "
     "first."},
    {"inspect", inspect, "inspect(value)", "Returns the value as text, as it would be written in Lua."},
    {"functions", functions, "functions()",
     "Returns a list of the functions of the language, each with its name, its usage and a sentence."},
    {"group_leader", group_leader, "group_leader()\ngroup_leader(leader, [pid])",
     "Returns the group leader, which takes the caller's output, or gives the caller or another process a "
     "new one."},
    {NULL, NULL, NULL, NULL},
};
