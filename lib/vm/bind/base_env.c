/* Invariant: a process reaches a table that other processes read only through a proxy (proxy.h). */
#include "vm/bind/base_env.h"

#include "base/buf.h"
#include "vm/bind/bind.h"
#include "vm/bind/guarded.h"
#include "vm/bind/prelude.h"
#include "vm/bind/proxy.h"
#include "vm/bind/require.h"
#include "vm/copy/array.h"
#include "vm/copy/bytecode.h"
#include "vm/copy/copy.h"
#include "vm/copy/factory.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/stdlib/files.h"
#include "vm/stdlib/yielding.h"

#include <lualib.h>
#include <stdlib.h>
#include <string.h>

/* --- which of Lua's functions a process has --- */

static const char *const base_names[] = {"assert", "error",    "getmetatable", "ipairs",   "next",
                                         "pairs",  "pcall",    "rawequal",     "rawget",   "rawlen",
                                         "select", "tonumber", "type",         "_VERSION", NULL};
static const char *const string_names[] = {"byte",     "char",  "find",   "format", "gmatch", "gsub",
                                           "len",      "lower", "match",  "pack",   "rep",    "reverse",
                                           "packsize", "sub",   "unpack", "upper",  NULL};
static const char *const table_names[] = {"concat", "insert", "move",   "pack",
                                          "remove", "sort",   "unpack", NULL};
static const char *const math_names[] = {
    "abs",  "acos",   "asin", "atan", "ceil",       "cos",       "deg",        "exp",  "floor",
    "fmod", "huge",   "log",  "max",  "maxinteger", "min",       "mininteger", "modf", "pi",
    "rad",  "random", "sin",  "sqrt", "tan",        "tointeger", "type",       "ult",  NULL};
static const char *const utf8_names[] = {"char", "charpattern", "codepoint", "codes", "len", "offset", NULL};
static const char *const os_names[] = {"clock",  "date", "difftime", "getenv", "remove",
                                       "rename", "time", "tmpname",  NULL};
static const char *const io_names[] = {"lines", "open", "type", "write", NULL};

/* Lua looks up the methods of strings in this table, too. */
static void change_string(lua_State *L) {
  yielding_strings(L);
  yielding_find(L);
  yielding_gsub(L);
  yielding_format(L);
  lua_pushnil(L);
  lua_setfield(L, -2, "dump");
}

static void change_table(lua_State *L) {
  yielding_sort(L);
  yielding_tables(L);
}

static void change_utf8(lua_State *L) {
  yielding_len(L);
  yielding_offset(L);
}

/* The list of the open files of the running process. */
static struct file_list *files_of(lua_State *L) {
  struct process *p = process_of(L);
  struct limits *limits = p->isolate->config->limits;
  if (p->files) return p->files;
  if (!(p->files = calloc(1, sizeof *p->files))) {
    luaL_error(L, "out of memory");
    __builtin_unreachable();
  }
  p->files->max = (unsigned)limit_max(limits, LIMIT_FILES);
  p->files->refused = &limits->refused[LIMIT_FILES];
  p->files->told = &p->preemptible.facts->files;
  return p->files;
}

static int io_open(lua_State *L) {
  return files_open(L, files_of(L));
}
static int io_lines(lua_State *L) {
  return files_lines(L, files_of(L));
}

void base_env_leave(struct process *p) {
  p->files->told = NULL; /* the place may be another process's now */
  files_close(p->files);
  free(p->files);
  p->files = NULL;
}

static void change_io(lua_State *L) {
  static const luaL_Reg ours[] = {
      {"open", io_open}, {"lines", io_lines}, {"write", bind_write}, {NULL, NULL}};
  luaL_setfuncs(L, ours, 0);
}

static const struct {
  const char *name;
  lua_CFunction open;
  const char *const *names;
  void (*change)(lua_State *L); /* changes the opened library, at the top */
} libraries[] = {
    {LUA_STRLIBNAME, luaopen_string, string_names, change_string},
    {LUA_TABLIBNAME, luaopen_table, table_names, change_table},
    {LUA_MATHLIBNAME, luaopen_math, math_names, NULL},
    {LUA_UTF8LIBNAME, luaopen_utf8, utf8_names, change_utf8},
    {LUA_OSLIBNAME, luaopen_os, os_names, yielding_os},
    {LUA_IOLIBNAME, luaopen_io, io_names, change_io},
};

/* Copies the named fields of the table at `from` into the table at the top. */
static void copy_names(lua_State *L, int from, const char *const *names) {
  for (; *names; names++) {
    lua_getfield(L, from, *names);
    lua_setfield(L, -2, *names);
  }
}

/* --- the environment --- */

/* Pops the library at the top: gives names to its values, and puts a proxy for it into the table at index
 * base. */
static void finish_library(lua_State *L, struct isolate *iso, int base, const char *name) {
  proxy_note_fields(L, iso, name);
  proxy_make(L);
  lua_setfield(L, base, name);
}

/* Pushes the directories in which require looks, in the form that Lua's own package.path has. */
static void push_path(lua_State *L, const char *directories) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (const char *at = directories; *at; at += strlen(at) + 1) {
    if (at != directories) luaL_addchar(&b, ';');
    luaL_addstring(&b, at);
    luaL_addstring(&b, "/?.lua;");
    luaL_addstring(&b, at);
    luaL_addstring(&b, "/?/init.lua");
  }
  luaL_pushresult(&b);
}

static void push_package(lua_State *L, struct process *p) {
  lua_createtable(L, 0, 2);
  require_push_loaded(L);
  lua_setfield(L, -2, "loaded");
  push_path(L, p->isolate->config->path);
  lua_setfield(L, -2, "path");
}

/* Globals that are made for each process when it first uses them. */
static const struct {
  const char *name;
  void (*push)(lua_State *L, struct process *p);
} lazy[] = {{"_G", process_push_env}, {"package", push_package}};
enum { LAZY_COUNT = sizeof lazy / sizeof *lazy };

/* __index of the base table. */
static int lazy_global(lua_State *L) {
  struct process *p = process_of(L);
  const char *name = p && lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  for (int i = 0; i < LAZY_COUNT; i++) {
    if (strcmp(name, lazy[i].name) != 0) continue;
    lazy[i].push(L, p);
    return 1;
  }
  return 0;
}

/* Copies all fields of the table at index `from` into the table at index `to`. */
static void copy_fields(lua_State *L, int from, int to) {
  lua_pushnil(L);
  while (lua_next(L, from)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, to);
  }
}

/* pairs of a process's globals walks a copy of all globals that the process can name: the base table, the
 * lazy globals, and then the process's own globals, which replace others of the same name.  Upvalue: the base
 * table. */
static int walk_globals(lua_State *L) {
  lua_settop(L, 1);
  lua_newtable(L);
  copy_fields(L, lua_upvalueindex(1), 2);
  for (int i = 0; i < LAZY_COUNT; i++) {
    lazy[i].push(L, process_of(L));
    lua_setfield(L, 2, lazy[i].name);
  }
  copy_fields(L, 1, 2);
  lua_pushcclosure(L, proxy_next_pair, 1);
  return 1;
}

static void open_libraries(lua_State *L, struct isolate *iso, int base) {
  for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
    luaL_requiref(L, libraries[i].name, libraries[i].open, 0);
    if (libraries[i].change) libraries[i].change(L);
    lua_newtable(L);
    copy_names(L, lua_gettop(L) - 1, libraries[i].names);
    finish_library(L, iso, base, libraries[i].name);
    lua_pop(L, 1);
  }
}

const struct bind_library bind_libraries[] = {
    {"", bind_process}, {"", bind_message},  {"", bind_names},        {"", bind_output}, {"", bind_command},
    {"", bind_require}, {"node", bind_node}, {"global", bind_global}, {NULL, NULL},
};

/* The functions of the bindings: globals go into the base table, and functions of a library into the
 * library's own table. */
static void open_bindings(lua_State *L, struct isolate *iso, int base) {
  for (const struct bind_library *library = bind_libraries; library->functions; library++) {
    if (*library->name) {
      lua_newtable(L);
    } else {
      lua_pushvalue(L, base);
    }
    for (const struct bind_function *f = library->functions; f->name; f++) {
      if (!f->call) continue;
      lua_pushcfunction(L, f->call);
      lua_setfield(L, -2, f->name);
    }
    if (*library->name) {
      finish_library(L, iso, base, library->name);
    } else {
      lua_pop(L, 1);
    }
  }
}

static void open_base(lua_State *L, int base) {
  luaL_requiref(L, LUA_GNAME, luaopen_base, 0);
  int from = lua_gettop(L);
  lua_pushvalue(L, base);
  copy_names(L, from, base_names);
  yielding_ipairs(L);
  guarded_functions(L, from);
  lua_settop(L, from - 1);
}

/* Lua looks for the names of functions, for its errors and tracebacks, in the tables of this one. */
static void name_globals(lua_State *L, int base) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, base);
  lua_setfield(L, -2, LUA_GNAME);
  lua_pop(L, 1);
}

static int new_ref(lua_State *L) {
  lua_newtable(L);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

static void protect_strings(lua_State *L) {
  lua_pushliteral(L, "");
  lua_getmetatable(L, -1);
  proxy_protect_metatable(L);
  lua_pop(L, 2);
  luaL_getmetatable(L, LUA_FILEHANDLE);
  proxy_protect_metatable(L);
  lua_pop(L, 1);
}

static int pid_tostring(lua_State *L) {
  char text[NPID_TEXT_SIZE];
  npid p = copy_to_npid(L, 1);
  lua_pushstring(L, npid_format(isolate_of(L)->config->nodes, p, NPID_SHORT, text));
  return 1;
}

/* All pids and references share the one metatable of light userdata. */
static void open_pids(lua_State *L) {
  lua_pushlightuserdata(L, NULL);
  lua_createtable(L, 0, 3);
  lua_pushcfunction(L, pid_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushliteral(L, "pid");
  lua_setfield(L, -2, "__name");
  proxy_protect_metatable(L);
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
}

static void open_env(lua_State *L, struct isolate *iso, int base) {
  lua_createtable(L, 0, 2);
  lua_pushcfunction(L, lazy_global);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, base);
  lua_createtable(L, 0, 3);
  lua_pushvalue(L, base);
  lua_setfield(L, -2, "__index");
  lua_pushvalue(L, base);
  lua_pushcclosure(L, walk_globals, 1);
  lua_setfield(L, -2, "__pairs");
  proxy_protect_metatable(L);
  iso->refs.env_meta = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* The globals of the modules that come with the node: those of every process, without the process's own, and
 * with a require that prefers such modules. */
static void open_shared(lua_State *L, struct isolate *iso, int base) {
  lua_newtable(L);
  lua_pushcfunction(L, require_shared);
  lua_setfield(L, -2, "require");
  lua_createtable(L, 0, 3);
  lua_pushvalue(L, base);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, proxy_refuse_write);
  lua_setfield(L, -2, "__newindex");
  proxy_protect_metatable(L);
  lua_setmetatable(L, -2);
  proxy_note_name(L, iso, "globals of modules");
  iso->refs.shared = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void open_prelude(lua_State *L, int base) {
  if (luaL_loadbufferx(L, prelude_source, strlen(prelude_source), "=prelude", "t") != LUA_OK) lua_error(L);
  lua_pushvalue(L, base);
  lua_setupvalue(L, -2, 1);
  lua_call(L, 0, 0);
}

static int open_all(lua_State *L) {
  struct isolate *iso = lua_touserdata(L, 1);
  struct isolate_refs *refs = &iso->refs;
  struct buf header = BUF_INIT;
  if (!bytecode_header(L, &header)) return luaL_error(L, "out of memory");
  memcpy(iso->bytecode, header.data, BYTECODE_HEADER);
  buf_finish(&header);
  refs->threads = new_ref(L), refs->envs = new_ref(L), refs->loaded = new_ref(L);
  refs->names = new_ref(L), refs->values = new_ref(L), refs->modules = new_ref(L);
  refs->written = new_ref(L), refs->read = new_ref(L);
  lua_newtable(L);
  int base = lua_gettop(L);
  open_base(L, base);
  open_libraries(L, iso, base);
  open_bindings(L, iso, base);
  factory_open(L, iso);
  array_open(L, iso);
  protect_strings(L);
  open_pids(L);
  open_prelude(L, base);
  lua_pushvalue(L, base);
  proxy_note_fields(L, iso, "");
  lua_pop(L, 1);
  name_globals(L, base);
  open_shared(L, iso, base);
  open_env(L, iso, base);
  return 0;
}

bool base_env_open(lua_State *L, struct isolate *iso) {
  lua_pushcfunction(L, open_all);
  lua_pushlightuserdata(L, iso);
  bool ok = lua_pcall(L, 1, 0, 0) == LUA_OK;
  lua_settop(L, 0);
  return ok;
}
