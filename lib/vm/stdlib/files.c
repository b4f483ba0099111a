/* A read of a FIFO, a terminal or a socket may block, and with it a scheduler thread, so only files whose
 * reads return at once can be opened.  A command, which has descriptors of its own, can read the others. */
#include "vm/stdlib/files.h"

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

static int close_file(lua_State *L) {
  luaL_Stream *s = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  return luaL_fileresult(L, fclose(s->f) == 0, NULL);
}

/* Pushes a file handle without a file.  With closef NULL it counts as closed, so the collector does not close
 * it. */
static luaL_Stream *push_handle(lua_State *L) {
  luaL_Stream *s = lua_newuserdatauv(L, sizeof *s, 0);
  *s = (luaL_Stream){NULL, NULL};
  luaL_setmetatable(L, LUA_FILEHANDLE);
  return s;
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

/* Pushes the open file, or nil, the error's text and its number; returns the number of values. */
static int open_file(lua_State *L, const char *path, const char *mode) {
  struct stat st;
  luaL_Stream *s = push_handle(L);
  int fd = open(path, flags_of(mode), 0666);
  if (fd < 0) return errno == ENXIO ? refuse(L, path) : luaL_fileresult(L, 0, path);
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
  return 1;
}

int files_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, "r");
  luaL_argcheck(L, is_mode(mode), 2, "invalid mode");
  return open_file(L, path, mode);
}

/* The iterator of files_lines: closes the file at its end.  Upvalues: Lua's iterator, the file. */
static int next_line(lua_State *L) {
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_call(L, 0, LUA_MULTRET);
  if (lua_gettop(L) && !lua_isnil(L, 1)) return lua_gettop(L);
  luaL_Stream *s = lua_touserdata(L, lua_upvalueindex(2));
  if (s->closef) fclose(s->f);
  s->closef = NULL;
  return lua_gettop(L);
}

/* Returns the iterator, and the file for the loop to close.  A path is required: a process has no standard
 * input. */
int files_lines(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  int formats = lua_gettop(L) - 1;
  if (open_file(L, path, "r") > 1) {
    int code = (int)lua_tointeger(L, -1);
    if (code == EINVAL) return luaL_error(L, "%s", lua_tostring(L, -2));
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
