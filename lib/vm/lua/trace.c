/* The stack of a coroutine is a list of frames from the innermost to one that belongs to no function.  Lua
 * has no function that goes from one to the next: the beginning of Lua 5.4's CallInfo (lstate.h) is assumed,
 * and compared with what lua_getstack tells.  Where it differs, only the innermost frames are shown. */
#include "vm/lua/trace.h"

#include <lauxlib.h>
#include <stddef.h>

struct frame {
  void *func, *top;
  struct frame *previous, *next;
};

static struct frame *frame_at(lua_State *from, int level) {
  lua_Debug ar;
  return lua_getstack(from, level, &ar) ? (struct frame *)ar.i_ci : NULL;
}

/* Finds the outermost frames, and returns the number of all; 0: not known. */
static int find_last(lua_State *from, struct frame *last[TRACE_LAST]) {
  int n = 0;
  struct frame *f = frame_at(from, 0), *caller = frame_at(from, 1);
  if (LUA_VERSION_NUM != 504 || !f || !caller || f->previous != caller || caller->next != f) return 0;
  for (; f->previous; f = f->previous) last[n++ % TRACE_LAST] = f;
  return n;
}

static void add_name(luaL_Buffer *b, lua_State *L, const lua_Debug *ar) {
  if (*ar->namewhat) {
    lua_pushfstring(L, "%s '%s'", ar->namewhat, ar->name);
  } else if (*ar->what == 'm') {
    lua_pushliteral(L, "main chunk");
  } else if (*ar->what == 'C') {
    lua_pushliteral(L, "?");
  } else {
    lua_pushfstring(L, "function <%s:%d>", ar->short_src, ar->linedefined);
  }
  luaL_addvalue(b);
}

static void add_frame(luaL_Buffer *b, lua_State *L, lua_State *from, struct frame *f) {
  lua_Debug ar = {.i_ci = (struct CallInfo *)f};
  lua_getinfo(from, "Slnt", &ar);
  lua_pushfstring(L, ar.currentline > 0 ? "\n\t%s:%d: in " : "\n\t%s: in ", ar.short_src, ar.currentline);
  luaL_addvalue(b);
  add_name(b, L, &ar);
  if (ar.istailcall) luaL_addstring(b, "\n\t(...tail calls...)");
}

static void push_deep(lua_State *L, lua_State *from) {
  luaL_Buffer b;
  struct frame *last[TRACE_LAST];
  int n = find_last(from, last);
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "stack traceback:");
  for (int i = 0; i < TRACE_FIRST; i++) add_frame(&b, L, from, frame_at(from, i));
  if (n) {
    lua_pushfstring(L, "\n\t...\t(skipping %d levels)", n - TRACE_FIRST - TRACE_LAST);
    luaL_addvalue(&b);
  } else {
    luaL_addstring(&b, "\n\t...");
  }
  for (int i = 0; n && i < TRACE_LAST; i++) add_frame(&b, L, from, last[(n + i) % TRACE_LAST]);
  luaL_pushresult(&b);
}

void trace_push(lua_State *L, lua_State *from) {
  lua_Debug ar;
  if (lua_getstack(from, TRACE_DEEP, &ar)) {
    push_deep(L, from);
  } else {
    luaL_traceback(L, from, NULL, 0);
  }
}
