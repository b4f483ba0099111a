/* exec and ls.  exec asks the kernel to run a command, by a MAP that names the command and its ties to the
 * caller. */
#include "vm/bind/bind.h"

#include "vm/copy/copy.h"
#include "vm/process/isolate.h"
#include "vm/process/process.h"
#include "vm/process/ties.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- exec --- */

enum field_kind { TEXT, NUMBER, MAP };

static const struct {
  const char *name;
  enum field_kind kind;
} fields[] = {{"cwd", TEXT}, {"env", MAP}, {"timeout", NUMBER}, {"kill_after", NUMBER}, {"name", TEXT}};

static void check_field(lua_State *L, const char *name, enum field_kind kind) {
  static const int types[] = {[TEXT] = LUA_TSTRING, [NUMBER] = LUA_TNUMBER, [MAP] = LUA_TTABLE};
  if (lua_type(L, -1) != types[kind])
    luaL_error(L, "exec: '%s' is a %s, not a %s", name, luaL_typename(L, -1), lua_typename(L, types[kind]));
  if (kind != MAP) return;
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    if (lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1))
      luaL_error(L, "exec: 'env' maps names to strings");
    lua_pop(L, 1);
  }
}

/* env is always a MAP, also when it is empty, which copy_out would write as a LIST. */
static void put_env(lua_State *L, struct term_writer *w) {
  size_t at = term_open(w, TERM_MAP), n;
  uint32_t count = 0;
  lua_pushnil(L);
  for (; lua_next(L, -2); count++) {
    const char *key = lua_tostring(L, -2);
    term_put_text(w, key);
    lua_pushvalue(L, -1);
    const char *value = lua_tolstring(L, -1, &n);
    term_put_str(w, value, n);
    lua_pop(L, 2);
  }
  term_set_count(w, at, count);
}

/* Pushes a field of the spec.  The spec is data: it is read without metamethods, none of which may run during
 * an encoding. */
static int get_field(lua_State *L, const char *name) {
  lua_pushstring(L, name);
  return lua_rawget(L, 1);
}

static uint32_t put_field(lua_State *L, struct term_writer *w, size_t i) {
  uint32_t put = 0;
  if (get_field(L, fields[i].name) != LUA_TNIL) {
    check_field(L, fields[i].name, fields[i].kind);
    term_put_text(w, fields[i].name);
    if (fields[i].kind == MAP) {
      put_env(L, w);
    } else if (fields[i].kind == NUMBER) {
      lua_Number ms = lua_tonumber(L, -1);
      if (!(ms >= 0)) luaL_error(L, "exec: '%s' is in milliseconds, 0 or more", fields[i].name);
      term_put_int(w, ms < 1e15 ? (int64_t)ceil(ms)
                                : 0); /* from thirty thousand years on: 0, which is no limit */
    } else {
      term_put_text(w, lua_tostring(L, -1));
    }
    put = 1;
  }
  lua_pop(L, 1);
  return put;
}

static void put_argv(lua_State *L, struct term_writer *w) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  if (n < 1) luaL_argerror(L, 1, "a list with the command and its arguments expected");
  term_put_text(w, "argv");
  size_t at = term_open(w, TERM_LIST), len;
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    if (!lua_isstring(L, -1)) luaL_error(L, "exec: argument %I is a %s", i, luaL_typename(L, -1));
    const char *word = lua_tolstring(L, -1, &len);
    if (strlen(word) != len) luaL_error(L, "exec: argument %I has a NUL byte", i);
    term_put_str(w, word, len);
    lua_pop(L, 1);
  }
  term_set_count(w, at, (uint32_t)n);
}

static bool flag(lua_State *L, const char *name) {
  get_field(L, name);
  bool set = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return set;
}

/* Returns the pid, and with monitor also the reference. */
static int started(lua_State *L, int status, lua_KContext ref) {
  (void)status;
  int n = bind_take_reply(L);
  lua_settop(L, lua_gettop(L) - n + 1);
  if (ref) copy_push_npid(L, (npid)ref);
  return ref ? 2 : 1;
}

static int exec(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bind_check_suspends(L, "exec");
  struct process *p = process_of(L);
  bool link = flag(L, "link"), monitor = flag(L, "monitor"), owned = flag(L, "owned");
  npid ref = monitor ? bind_new_ref(p) : NPID_NONE;
  struct copy c = copy_begin(L);
  struct term_writer *w = c.w;
  term_put_text(w, "exec");
  size_t at = term_open(w, TERM_MAP);
  put_argv(L, w);
  uint32_t count = 2;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) count += put_field(L, w, i);
  bind_put_pid(w, "leader", p->pid);
  if (link) bind_put_pid(w, "link", p->pid), count++;
  if (owned) bind_put_pid(w, "owner", p->pid), count++;
  if (monitor) bind_put_monitor(w, p->pid, ref), count++;
  term_set_count(w, at, count);
  struct term *term = copy_end(&c, 2);
  int rc = monitor ? process_monitor(p, ref, NPID_KERNEL, 0) : 0;
  if (rc) {
    term_unref(term);
    return bind_raise(L, rc, LIMIT_TIES);
  }
  p->callee_ref = ref;
  return bind_call(L, NPID_KERNEL, term, started, monitor ? (lua_KContext)ref : 0);
}

/* --- ls --- */

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A relative path starts at the directory of the node. */
static DIR *open_directory(lua_State *L, const char *path) {
  int base = open(isolate_of(L)->config->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int fd = base < 0 && *path != '/' ? -1 : openat(base, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int saved = errno;
  if (base >= 0) close(base);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    if (fd >= 0) saved = errno, close(fd);
    errno = saved;
  }
  return dir;
}

struct names_list {
  char **names;
  size_t len, cap;
};

static bool add(struct names_list *l, const char *name) {
  if (l->len == l->cap) {
    size_t cap = l->cap ? 2 * l->cap : 64;
    char **names = realloc(l->names, cap * sizeof *names);
    if (!names) return false;
    l->names = names;
    l->cap = cap;
  }
  l->names[l->len] = strdup(name);
  return l->names[l->len] ? ++l->len : false;
}

static int push_list(lua_State *L) {
  const struct names_list *l = lua_touserdata(L, 1);
  lua_createtable(L, (int)l->len, 0);
  for (size_t i = 0; i < l->len; i++) {
    lua_pushstring(L, l->names[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static int ls(lua_State *L) {
  const char *path = luaL_optstring(L, 1, ".");
  DIR *dir = open_directory(L, path);
  if (!dir) return luaL_error(L, "%s: %s", path, strerror(errno));
  struct names_list l = {0};
  bool whole = true;
  for (struct dirent *entry; whole && (entry = readdir(dir));)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) whole = add(&l, entry->d_name);
  closedir(dir);
  if (l.len) qsort(l.names, l.len, sizeof *l.names, by_name);
  lua_pushcfunction(L, push_list);
  lua_pushlightuserdata(L, &l);
  int status = whole ? lua_pcall(L, 1, 1, 0) : LUA_ERRMEM;
  while (l.len > 0) free(l.names[--l.len]);
  free(l.names);
  return whole && status == LUA_OK ? 1 : luaL_error(L, "out of memory");
}

const struct bind_function bind_command[] = {
    {"exec", exec, "exec(spec)", "Runs a command, and returns its pid."},
    {"sh", NULL, "sh(command)",
     "Runs a line of shell, and returns what it wrote to stdout and its exit status."},
    {"ls", ls, "ls([directory])", "Returns the sorted names in a directory."},
    {NULL, NULL, NULL, NULL},
};
