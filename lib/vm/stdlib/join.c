/* table.concat of a table without a metatable: the length of the result first, then its bytes.
 *
 * Stack of a long call: 1 the table, 2 the separator, 3 and 4 the first and the last index, 5 the state, 6
 * the pieces; above that the values of one step.  While the process is suspended nothing changes the table,
 * since no other process can reach it. */
#include "vm/stdlib/yielding.h"

#include "vm/lua/pieces.h"
#include "vm/lua/yield.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { TABLE = 1, SEPARATOR, FIRST, LAST, STATE, PIECES };
enum {
  NUMBER = 48, /* a number as text is no longer */
  BATCH = 1024 /* elements looked at between two questions whether to yield */
};

struct join {
  lua_Integer next, last;
  lua_CFunction original; /* Lua's table.concat */
  size_t total;
  size_t done; /* bytes written of the element `next` and the separator behind it */
};

/* Pushes element i as a string, or leaves an integer to the buffer; returns its text. */
static const char *element(lua_State *L, lua_Integer i, char number[NUMBER], size_t *len) {
  lua_rawgeti(L, TABLE, i);
  if (!lua_isinteger(L, -1)) return lua_tolstring(L, -1, len);
  *len = (size_t)snprintf(number, NUMBER, "%" PRId64, (int64_t)lua_tointeger(L, -1));
  return number;
}

/* Lua's own function raises the error of element i. */
static int refuse(lua_State *L, const struct join *j, lua_Integer i) {
  lua_CFunction original = j->original;
  lua_settop(L, SEPARATOR);
  lua_pushinteger(L, i);
  lua_pushinteger(L, i);
  return original(L);
}

static int write_on(lua_State *L, int status, lua_KContext context);

/* Adds up the lengths of the elements. */
static int measure_on(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  struct join *j = lua_touserdata(L, STATE);
  char number[NUMBER];
  size_t len = 0, separator = lua_rawlen(L, SEPARATOR);
  for (int n = 0; j->next <= j->last; n++) {
    if (n == BATCH) {
      if (yield_due(L)) return lua_yieldk(L, 0, 0, measure_on);
      n = 0;
    }
    lua_Integer i = j->next;
    if (!element(L, i, number, &len)) return refuse(L, j, i);
    lua_pop(L, 1);
    len += i < j->last ? separator : 0;
    if (len > SIZE_MAX / 2 - j->total) return luaL_error(L, "resulting string too large");
    j->total += len;
    if (i == j->last) break; /* i + 1 might overflow */
    j->next++;
  }
  j->next = lua_tointeger(L, FIRST);
  pieces_push(L, j->total);
  return write_on(L, LUA_OK, 0);
}

/* Copies what fits of an element's or separator's bytes, of which `skip` are there already. */
static size_t copy(struct pieces *p, const char *bytes, size_t len, size_t skip) {
  size_t n = len - skip < PIECE ? len - skip : PIECE;
  memcpy(p->bytes + p->at, bytes + skip, n);
  p->at += n;
  return n;
}

/* Writes a piece at most of the next element and its separator; true: it is complete. */
static bool write_element(lua_State *L, struct join *j, struct pieces *p) {
  char number[NUMBER];
  size_t len = 0, m = 0;
  const char *bytes = element(L, j->next, number, &len), *separator = lua_tolstring(L, SEPARATOR, &m);
  if (j->next == j->last) m = 0;
  if (j->done < len) j->done += copy(p, bytes, len, j->done);
  if (j->done >= len && j->done < len + m) j->done += copy(p, separator, m, j->done - len);
  lua_pop(L, 1);
  return j->done == len + m;
}

static int write_on(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  struct join *j = lua_touserdata(L, STATE);
  struct pieces *p = lua_touserdata(L, PIECES);
  size_t pause = p->at + 2 * PIECE;
  for (int n = 0; p->at < p->len; n++) {
    if (n == BATCH || p->at >= pause) {
      if (yield_due(L)) return lua_yieldk(L, 0, 0, write_on);
      n = 0, pause = p->at + 2 * PIECE;
    }
    if (!write_element(L, j, p)) continue;
    if (j->next < j->last) j->next++; /* the last index may be the greatest integer */
    j->done = 0;
  }
  pieces_finish(L, PIECES);
  lua_settop(L, PIECES);
  return 1;
}

bool yielding_join_is_long(lua_State *L, lua_Integer first, lua_Integer last) {
  enum { FEW = 1000 };
  if (first > last) return false;
  if ((lua_Unsigned)last - (lua_Unsigned)first >= FEW) return true;
  size_t total = (lua_isstring(L, SEPARATOR) ? lua_rawlen(L, SEPARATOR) : 0) * (size_t)(last - first);
  for (lua_Integer i = first; total <= PIECE; i++) {
    lua_rawgeti(L, TABLE, i);
    total += lua_rawlen(L, -1);
    lua_pop(L, 1);
    if (i == last) break;
  }
  return total > PIECE;
}

int yielding_join(lua_State *L, lua_CFunction original, lua_Integer first, lua_Integer last) {
  lua_settop(L, SEPARATOR);
  if (lua_isnil(L, SEPARATOR)) {
    lua_pushliteral(L, "");
    lua_replace(L, SEPARATOR);
  }
  lua_tostring(L, SEPARATOR); /* makes a string of a number */
  lua_pushinteger(L, first);
  lua_pushinteger(L, last);
  struct join *j = lua_newuserdatauv(L, sizeof *j, 0);
  *j = (struct join){.next = first, .last = last, .original = original};
  luaL_checkstack(L, 8, NULL);
  return measure_on(L, LUA_OK, 0);
}
