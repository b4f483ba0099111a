/* Invariant: a file handle is in its list exactly while its file is open.
 *
 * A read of a FIFO, a terminal or a socket may block, and with it a scheduler thread, so only files whose
 * reads return at once can be opened.  A command, which has descriptors of its own, can read the others. */
#include "vm/stdlib/files.h"

#include "base/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { MEMORY_DEVICES = 1 }; /* the major number of /dev/null, /dev/zero and similar devices */

struct file { /* the userdata of a file handle, as Lua's io library knows it, with the links of the list */
  luaL_Stream stream;
  struct file *next, **pprev;
  struct file_list *list;
};

static void count(struct file_list *list, int n) {
  list->count += (unsigned)n;
  if (list->told) atomic_store_explicit(list->told, list->count, memory_order_relaxed);
}

static void list_in(struct file *f, struct file_list *list) {
  f->list = list;
  f->next = list->first;
  f->pprev = &list->first;
  if (f->next) f->next->pprev = &f->next;
  list->first = f;
  count(list, 1);
}

static void list_out(struct file *f) {
  *f->pprev = f->next;
  if (f->next) f->next->pprev = f->pprev;
  count(f->list, -1);
  f->list->collected = false;
}

static int close_file(lua_State *L) {
  struct file *f = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  list_out(f);
  return luaL_fileresult(L, fclose(f->stream.f) == 0, NULL);
}

/* Closes an open file; its handle counts as closed from then on. */
static void close_now(struct file *f) {
  list_out(f);
  fclose(f->stream.f);
  f->stream = (luaL_Stream){NULL, NULL};
}

void files_close(struct file_list *list) {
  while (list->first) close_now(list->first);
}

/* Pushes a file handle without a file.  With closef NULL it counts as closed, so the collector does not close
 * it. */
static struct file *push_handle(lua_State *L) {
  struct file *f = lua_newuserdatauv(L, sizeof *f, 0);
  *f = (struct file){.stream = {NULL, NULL}};
  luaL_setmetatable(L, LUA_FILEHANDLE);
  return f;
}

/* Is the mode one of r, w, a, followed by an optional + and an optional b? */
static bool is_mode(const char *mode) {
  if (!*mode || !strchr("rwa", *mode++)) return false;
  if (*mode == '+') mode++;
  return strspn(mode, "b") == strlen(mode);
}

static int flags_of(const char *mode) {
  int flags = strchr(mode, '+') ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
  if (*mode != 'r') flags |= O_CREAT | (*mode == 'w' ? O_TRUNC : O_APPEND);
  return flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
}

static bool answers_at_once(const struct stat *st) {
  return S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISBLK(st->st_mode) ||
         (S_ISCHR(st->st_mode) && major(st->st_rdev) == MEMORY_DEVICES);
}

static int refuse(lua_State *L, const char *path) {
  luaL_pushfail(L);
  lua_pushfstring(
      L, "%s: a pipe, a terminal or the like, whose reader might wait for ever; sh() or exec() can read it",
      path);
  lua_pushinteger(L, EINVAL);
  return 3;
}

static bool has_room(lua_State *L, struct file_list *list) {
  if (list->count >= list->max && !list->collected) {
    list->collected = true;
    lua_gc(L, LUA_GCCOLLECT);
  }
  return list->count < list->max;
}

static int too_many(lua_State *L, const char *path, const char *why) {
  luaL_pushfail(L);
  lua_pushfstring(L, "%s: too many open files: %s", path, why);
  lua_pushinteger(L, EMFILE);
  return 3;
}

static int too_many_of_one(lua_State *L, struct file_list *list, const char *path) {
  if (list->refused) atomic_fetch_add_explicit(list->refused, 1, memory_order_relaxed);
  char why[64];
  snprintf(why, sizeof why, "a process may have %u (node-start --max files)", list->max);
  return too_many(L, path, why);
}

/* Opens a path; -1 with errno: EMFILE also where the descriptor would be one that the node keeps. */
static int open_path(const char *path, int flags) {
  int fd = open(path, flags, 0666);
  if (fd < 0 || !fds_kept(fd, FDS_FILES)) return fd;
  close(fd);
  errno = EMFILE;
  return -1;
}

static int not_opened(lua_State *L, const char *path) {
  if (errno == ENXIO) return refuse(L, path);
  if (errno == EMFILE) return too_many(L, path, "the node keeps its last descriptors for itself (ulimit -n)");
  return luaL_fileresult(L, 0, path);
}

/* Pushes the open file, or nil, the error's text and its number; returns the number of values. */
static int open_file(lua_State *L, struct file_list *list, const char *path, const char *mode) {
  struct stat st;
  struct file *f = push_handle(L);
  luaL_Stream *s = &f->stream;
  if (!has_room(L, list)) return too_many_of_one(L, list, path);
  int fd = open_path(path, flags_of(mode));
  if (fd < 0) return not_opened(L, path);
  if (fstat(fd, &st) == 0 && !answers_at_once(&st)) {
    close(fd);
    return refuse(L, path);
  }
  if (!(s->f = fdopen(fd, mode))) {
    int saved = errno;
    close(fd);
    errno = saved;
    return luaL_fileresult(L, 0, path);
  }
  s->closef = close_file;
  list_in(f, list);
  return 1;
}

int files_open(lua_State *L, struct file_list *list) {
  const char *path = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, "r");
  luaL_argcheck(L, is_mode(mode), 2, "invalid mode");
  return open_file(L, list, path, mode);
}

/* The iterator of files_lines: closes the file at its end.  Upvalues: Lua's iterator, the file. */
static int next_line(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_call(L, 0, LUA_MULTRET);
  if (lua_gettop(L) && !lua_isnil(L, 1)) return lua_gettop(L);
  struct file *f = lua_touserdata(L, lua_upvalueindex(2));
  if (f->stream.closef) close_now(f);
  return lua_gettop(L);
}

/* Returns the iterator, and the file for the loop to close.  A path is required: a process has no standard
 * input. */
int files_lines(lua_State *L, struct file_list *list) {
  const char *path = luaL_checkstring(L, 1);
  int formats = lua_gettop(L) - 1;
  if (open_file(L, list, path, "r") > 1) {
    int code = (int)lua_tointeger(L, -1);
    if (code == EINVAL || code == EMFILE) return luaL_error(L, "%s", lua_tostring(L, -2));
    return luaL_error(L, "cannot open file '%s' (%s)", path, strerror(code));
  }
  lua_replace(L, 1);
  lua_getfield(L, 1, "lines");
  lua_insert(L, 2);
  lua_pushvalue(L, 1);
  lua_insert(L, 3);
  lua_call(L, formats + 1, 1);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, next_line, 2);
  lua_pushnil(L);
  lua_pushnil(L);
  lua_pushvalue(L, 1);
  return 4;
}
