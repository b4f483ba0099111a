/* Invariant: while a chunk is being loaded, its module's entry in the table of loaded modules is `loading`,
 * and a to-be-closed value in the frame of require stands for it.  An error in the chunk closes this value,
 * which removes the entry, so that a later require loads the module again. */
#include "vm/bind/require.h"

#include "base/buf.h"
#include "vm/bind/bind.h"
#include "vm/bind/proxy.h"
#include "vm/copy/bytecode.h"
#include "vm/copy/factory.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Its address is the value of a module in the table of loaded modules while the module is being loaded. */
static const char loading = 0;

/* Pushes a new table of loaded modules: as in Lua, it has the libraries from the start. */
static void push_libraries(lua_State *L, struct process *p) {
  static const char *const names[] = {"string", "table", "math", "utf8", "os", "io", NULL};
  lua_newtable(L);
  process_push_env(L, p);
  lua_getmetatable(L, -1);
  lua_getfield(L, -1, "__index"); /* the base table, which the process's own globals do not change */
  for (const char *const *name = names; *name; name++) {
    lua_getfield(L, -1, *name);
    lua_setfield(L, -5, *name);
  }
  lua_pop(L, 2);
  lua_setfield(L, -2, "_G");
}

void require_push_loaded(lua_State *L) {
  struct process *p = process_of(L);
  luaL_checkstack(L, 8, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, p->isolate->refs.loaded);
  if (lua_rawgeti(L, -1, (lua_Integer)p->slot + 1) != LUA_TTABLE) {
    lua_pop(L, 1);
    push_libraries(L, p);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, (lua_Integer)p->slot + 1);
    p->modules = true;
  }
  lua_replace(L, -2);
}

/* --- finding --- */

/* A name is words with dots between, so that the path of its file is always below the directory. */
static void check_name(lua_State *L, const char *name) {
  const char *at = name;
  for (; *at; at++) {
    bool dot = *at == '.' && at != name && at[1] && at[1] != '.';
    bool word = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9') ||
                *at == '_' || *at == '-';
    if (!dot && !word) break;
  }
  if (*at || at == name) luaL_error(L, "'%s' is not a module's name", name);
}

/* Pushes the path of the module's file in a directory, if it is there; else a line with the path that it
 * tried. */
static bool try_file(lua_State *L, const char *directory, const char *name, const char *suffix,
                     struct stat *st) {
  const char *file = luaL_gsub(L, name, ".", "/");
  const char *path = lua_pushfstring(L, "%s/%s%s", directory, file, suffix);
  lua_remove(L, -2);
  if (stat(path, st) == 0 && S_ISREG(st->st_mode)) return true;
  lua_pushfstring(L, "\n\tno file '%s'", path);
  lua_remove(L, -2);
  return false;
}

static bool try_directory(lua_State *L, const char *directory, const char *name, struct stat *st) {
  if (try_file(L, directory, name, ".lua", st)) return true;
  if (try_file(L, directory, name, "/init.lua", st)) return true;
  lua_concat(L, 2);
  return false;
}

/* Pushes the path of the module's file, or raises an error that lists where it looked. */
static const char *find(lua_State *L, const char *name, struct stat *st) {
  const struct vm_config *config = process_of(L)->isolate->config;
  int looked = 0;
  luaL_checkstack(L, 200, NULL);
  lua_pushliteral(L, "");
  for (const char *at = config->path; *at && looked < 150; at += strlen(at) + 1, looked++)
    if (try_directory(L, at, name, st)) return lua_tostring(L, -1);
  lua_concat(L, looked + 1);
  luaL_error(L, "module '%s' not found:%s", name, lua_tostring(L, -1));
  return NULL;
}

/* --- loading --- */

struct stamp {
  struct timespec changed;
  uint64_t size, inode;
};

static struct stamp stamp_of(const struct stat *st) {
  return (struct stamp){st->st_mtim, (uint64_t)st->st_size, (uint64_t)st->st_ino};
}

/* A compiled module is kept as a string: the stamp of its file, then bytecode.  Pushes an instance of it, if
 * the file has not changed since. */
static bool push_kept(lua_State *L, struct isolate *iso, const char *path, const struct stamp *stamp) {
  size_t len;
  const char *problem;
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.modules);
  if (lua_getfield(L, -1, path) != LUA_TSTRING) {
    lua_pop(L, 2);
    return false;
  }
  const char *kept = lua_tolstring(L, -1, &len);
  const struct factory *f = NULL;
  if (memcmp(kept, stamp, sizeof *stamp) == 0)
    f = factory_find(L, iso, kept + sizeof *stamp, len - sizeof *stamp, &problem);
  if (f) {
    factory_push(L, f);
    lua_insert(L, -3);
  }
  lua_pop(L, 2);
  return f;
}

/* Keeps the bytecode of the function at the top.  When memory runs out, nothing is kept, and the module is
 * compiled again next time. */
static void keep(lua_State *L, struct isolate *iso, const char *path, const struct stamp *stamp) {
  struct buf out = BUF_INIT;
  buf_append(&out, stamp, sizeof *stamp);
  struct buf dump = BUF_INIT;
  if (bytecode_dump(L, &dump)) buf_append(&out, dump.data + BYTECODE_BODY, dump.len - BYTECODE_BODY);
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.modules);
  bool whole = buf_ok(&dump) && buf_ok(&out);
  if (whole) lua_pushlstring(L, out.data, out.len);
  buf_finish(&dump);
  buf_finish(&out);
  if (whole) lua_setfield(L, -2, path);
  lua_pop(L, 1);
}

/* Pushes the chunk of the module, with the globals of the process. */
static void load(lua_State *L, const char *path, const struct stat *st) {
  struct process *p = process_of(L);
  struct stamp stamp = stamp_of(st);
  if (!push_kept(L, p->isolate, path, &stamp)) {
    if (luaL_loadfilex(L, path, "t") != LUA_OK) lua_error(L);
    keep(L, p->isolate, path, &stamp);
  }
  process_push_env(L, p);
  lua_setupvalue(L, -2, 1);
}

/* __close of the value that stands for the entry: removes the entry if the chunk has left it as it was. */
static int give_up(lua_State *L) {
  lua_getiuservalue(L, 1, 1); /* the table of loaded modules */
  lua_getiuservalue(L, 1, 2); /* the module's name */
  lua_pushvalue(L, -1);
  if (lua_rawget(L, -3) == LUA_TLIGHTUSERDATA && lua_touserdata(L, -1) == &loading) {
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_rawset(L, -3);
  }
  return 0;
}

/* Marks the module as being loaded until the function that runs returns or raises.  Stack: name, table of
 * loaded modules, …. */
static void begin(lua_State *L) {
  lua_newuserdatauv(L, 0, 2);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 2);
  if (luaL_newmetatable(L, "module being loaded")) {
    lua_pushcfunction(L, give_up);
    lua_setfield(L, -2, "__close");
  }
  lua_setmetatable(L, -2);
  lua_pushvalue(L, 1);
  lua_pushlightuserdata(L, (void *)&loading);
  lua_rawset(L, 2);
  lua_toclose(L, -1);
}

/* Returns the module and the path of its file.  As in Lua, the module is the result of the chunk; if that is
 * nil, it is what the chunk has entered into the table of loaded modules itself, or else true.  Stack: name,
 * table of loaded modules, path, …, result. */
static int loaded(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushvalue(L, 1);
    int type = lua_rawget(L, 2);
    if (type == LUA_TNIL || (type == LUA_TLIGHTUSERDATA && lua_touserdata(L, -1) == &loading)) {
      lua_pop(L, 1);
      lua_pushboolean(L, 1);
    }
  }
  lua_pushvalue(L, 1);
  lua_pushvalue(L, -2);
  lua_rawset(L, 2);
  lua_pushvalue(L, 3);
  return 2;
}

/* --- modules that come with the node --- */

static const char *const shared_modules[] = {"group", "server", "supervisor", "task", NULL};

static bool is_shared(const char *name) {
  for (const char *const *module = shared_modules; *module; module++)
    if (strcmp(*module, name) == 0) return true;
  return false;
}

/* Pushes the path of the file of a module that comes with the node. */
static const char *shared_path(lua_State *L, const char *name) {
  return lua_pushfstring(L, "%s/%s.lua", process_of(L)->isolate->config->library, name);
}

/* Pushes the value with a name, or nil. */
static bool push_named(lua_State *L, const char *name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, process_of(L)->isolate->refs.values);
  bool known = lua_getfield(L, -1, name) != LUA_TNIL;
  lua_remove(L, -2);
  return known;
}

/* (name, path): runs the chunk of the module; protected. */
static int load_shared(lua_State *L) {
  const char *name = lua_tostring(L, 1);
  struct isolate *iso = process_of(L)->isolate;
  if (luaL_loadfilex(L, lua_tostring(L, 2), "t") != LUA_OK) lua_error(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, iso->refs.shared);
  lua_setupvalue(L, -2, 1);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_call(L, 2, 1);
  if (!lua_istable(L, -1)) return luaL_error(L, "module '%s' is no table", name);
  proxy_share(L, iso, name);
  return 1;
}

/* Pushes the module of this name that comes with the node, and that belongs to nobody. */
static void push_shared(lua_State *L, const char *name) {
  struct heap *h = &process_of(L)->isolate->heap;
  uint32_t owner = h->owner;
  if (push_named(L, name)) return;
  lua_pop(L, 1);
  lua_pushcfunction(L, load_shared);
  lua_pushstring(L, name);
  shared_path(L, name);
  heap_enter(h, HEAP_NOBODY);
  int status = lua_pcall(L, 2, 1, 0);
  heap_enter(h, owner);
  if (status != LUA_OK) lua_error(L);
}

void require_library(lua_State *L, const char *name) {
  char module[32];
  size_t n = strcspn(name, ".");
  luaL_checkstack(L, 8, NULL);
  snprintf(module, sizeof module, "%.*s", (int)n, name);
  if (n < sizeof module && is_shared(module)) {
    push_shared(L, module);
    lua_pop(L, 1);
  }
  push_named(L, name);
}

/* Returns the module at the top, and the path of its file. */
static int enter_shared(lua_State *L, const char *name, const char *path) {
  require_push_loaded(L);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
  lua_pushstring(L, path);
  return 2;
}

int require_shared(lua_State *L) {
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
  if (!is_shared(name)) return require_module(L);
  push_shared(L, name);
  return 1;
}

int require_module(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  struct stat st;
  lua_settop(L, 1);
  require_push_loaded(L);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, 2) != LUA_TNIL) {
    if (lua_touserdata(L, -1) == &loading)
      return luaL_error(L, "module '%s' requires itself, directly or through another", name);
    return 1;
  }
  lua_pop(L, 1);
  check_name(L, name);
  const char *path = find(L, name, &st);
  lua_replace(L, 3);
  lua_settop(L, 3);
  if (is_shared(name) && strcmp(path, shared_path(L, name)) == 0) {
    push_shared(L, name);
    return enter_shared(L, name, path);
  }
  load(L, path, &st);
  begin(L);
  lua_pushvalue(L, -2);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 3);
  lua_callk(L, 2, 1, 0, loaded);
  return loaded(L, LUA_OK, 0);
}

const struct bind_function bind_require[] = {
    {"require", require_module, "require(module)",
     "Loads a module, once in each process, and returns it and the path of its file."},
    {NULL, NULL, NULL, NULL},
};
