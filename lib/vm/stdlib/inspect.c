/* The stack holds, for each table around the present value, the table, the sorted list of its keys, and one
 * key with its value.  The text grows in a userdata, which the collector frees if an error leaves
 * inspect_push. */
#include "vm/stdlib/inspect.h"

#include "base/text.h"

#include <ctype.h>
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  DEPTH_MAX = 8,
  ITEMS_MAX = 1000,
  SHOWN_MAX = 10000, /* items of all tables together */
  TEXT_MAX = 1 << 18,
  SCAN_MAX = 50000, /* entries of all tables together that are looked at for keys outside of lists */
};

struct inspector {
  lua_State *L;
  struct buf *out;
  inspect_handle *handle;
  int open[DEPTH_MAX + 1]; /* stack indices of the tables around */
  int scanned;             /* entries looked at */
  int shown;               /* items written */
};

static void put(struct inspector *in, int index, int depth);

static void put_string(struct buf *out, const char *s, size_t n) {
  static const char named[] = "\a\b\f\n\r\t\v", letters[] = "abfnrtv";
  buf_putc(out, '"');
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)s[i];
    const char *name = c ? strchr(named, c) : NULL;
    if (name) {
      buf_printf(out, "\\%c", letters[name - named]);
    } else if (c == '"' || c == '\\') {
      buf_printf(out, "\\%c", c);
    } else if (c < 0x20 || c == 0x7f) {
      buf_printf(out, "\\x%02x", c);
    } else {
      buf_putc(out, (char)c);
    }
  }
  buf_putc(out, '"');
}

static void put_byte(struct buf *out, unsigned char c) {
  static const char digits[] = "0123456789abcdef";
  if (c >= 0x20 && c < 0x7f) {
    buf_putc(out, (char)c);
  } else {
    buf_append(out, (const char[]){'\\', 'x', digits[c >> 4], digits[c & 15]}, 4);
  }
}

static void put_bytes(struct buf *out, const char *s, size_t n) {
  bool cut = n > TEXT_MAX;
  if (cut) n = TEXT_MAX;
  struct buf quoted = BUF_INIT;
  put_string(&quoted, s, n);
  /* Bytes that are not UTF-8 are written as escapes: a terminal would show garbage. */
  if (buf_ok(&quoted) && text_utf8(quoted.data, quoted.len)) {
    buf_append(out, quoted.data, quoted.len);
  } else {
    buf_putc(out, '"');
    for (size_t i = 0; i < n; i++) put_byte(out, (unsigned char)s[i]);
    buf_putc(out, '"');
  }
  buf_finish(&quoted);
  if (cut) buf_puts(out, "…");
}

static void put_number(struct inspector *in, int index) {
  lua_Number d = lua_tonumber(in->L, index);
  if (lua_isinteger(in->L, index)) {
    buf_printf(in->out, "%lld", (long long)lua_tointeger(in->L, index));
  } else if (isfinite(d) && floor(d) == d && fabs(d) < 1e15) {
    buf_printf(in->out, "%.1f", d);
  } else {
    buf_printf(in->out, "%.14g", d);
  }
}

static bool is_word(const char *s, size_t n) {
  static const char *const reserved[] = {
      "and", "break", "do",  "else", "elseif", "end",    "false",  "for",  "function", "goto",  "if",
      "in",  "local", "nil", "not",  "or",     "repeat", "return", "then", "true",     "until", "while"};
  if (n == 0 || isdigit((unsigned char)s[0])) return false;
  for (size_t i = 0; i < n; i++)
    if (!isalnum((unsigned char)s[i]) && s[i] != '_') return false;
  for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
    if (strcmp(s, reserved[i]) == 0) return false;
  return true;
}

static void put_key(struct inspector *in, int index, int depth) {
  size_t n;
  const char *s = lua_type(in->L, index) == LUA_TSTRING ? lua_tolstring(in->L, index, &n) : NULL;
  if (s && is_word(s, n)) {
    buf_append(in->out, s, n);
  } else {
    buf_putc(in->out, '[');
    put(in, index, depth);
    buf_putc(in->out, ']');
  }
  buf_puts(in->out, " = ");
}

/* The order of keys: numbers, then strings, each in their order, then all others in any order. */
static int rank(int type) {
  return type == LUA_TNUMBER ? 0 : type == LUA_TSTRING ? 1 : 2;
}

static int compare(lua_State *L, int a, int b) {
  int ta = lua_type(L, a), tb = lua_type(L, b);
  if (rank(ta) != rank(tb)) return rank(ta) - rank(tb);
  if (rank(ta) == 2) return 0;
  return lua_compare(L, a, b, LUA_OPLT) ? -1 : lua_compare(L, b, a, LUA_OPLT);
}

/* Is item a of the list before item b? */
static bool is_before(lua_State *L, int list, lua_Integer a, lua_Integer b) {
  lua_rawgeti(L, list, a);
  lua_rawgeti(L, list, b);
  bool before = compare(L, list + 1, list + 2) < 0;
  lua_pop(L, 2);
  return before;
}

static void swap(lua_State *L, int list, lua_Integer a, lua_Integer b) {
  lua_rawgeti(L, list, a);
  lua_rawgeti(L, list, b);
  lua_rawseti(L, list, a);
  lua_rawseti(L, list, b);
}

/* Restores the heap of the first n items below item i: no parent is before its children in the order. */
static void sift(lua_State *L, int list, lua_Integer i, lua_Integer n) {
  for (lua_Integer child; (child = 2 * i) <= n; i = child) {
    if (child < n && is_before(L, list, child, child + 1)) child++;
    if (!is_before(L, list, i, child)) return;
    swap(L, list, i, child);
  }
}

/* Sorts the list of n keys at the top.  A heap sort, as table.sort could call back. */
static void sort_keys(lua_State *L, lua_Integer n) {
  int list = lua_gettop(L);
  for (lua_Integer i = n / 2; i >= 1; i--) sift(L, list, i, n);
  for (lua_Integer last = n; last > 1; last--) {
    swap(L, list, 1, last);
    sift(L, list, 1, last - 1);
  }
}

static bool in_list(lua_State *L, int key, lua_Integer n) {
  return lua_isinteger(L, key) && lua_tointeger(L, key) >= 1 && lua_tointeger(L, key) <= n;
}

static void separate(struct inspector *in, bool *first) {
  if (!*first) buf_puts(in->out, ", ");
  *first = false;
}

/* Pushes a list of the keys that are not in the table's list; returns how many.  ITEMS_MAX: there may be
 * more.
 */
static lua_Integer collect_keys(struct inspector *in, int table, lua_Integer listed) {
  lua_State *L = in->L;
  lua_Integer n = 0;
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, table)) {
    lua_pop(L, 1);
    bool skipped = in_list(L, lua_gettop(L), listed);
    if (n == ITEMS_MAX || ++in->scanned > SCAN_MAX) {
      lua_pop(L, 1);
      break;
    }
    if (skipped) continue;
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, ++n);
  }
  return n;
}

/* Is there no room for a further item? */
static bool is_full(const struct inspector *in) {
  return in->out->len >= TEXT_MAX || in->shown >= SHOWN_MAX;
}

static void put_items(struct inspector *in, int table, int depth) {
  lua_State *L = in->L;
  bool first = true;
  lua_Integer listed = (lua_Integer)lua_rawlen(L, table), shown = listed < ITEMS_MAX ? listed : ITEMS_MAX;
  for (lua_Integer i = 1; i <= shown && !is_full(in); i++) {
    separate(in, &first);
    in->shown++;
    lua_rawgeti(L, table, i);
    put(in, lua_gettop(L), depth);
    lua_pop(L, 1);
  }
  lua_Integer n = collect_keys(in, table, listed);
  if (!is_full(in)) sort_keys(L, n);
  int keys = lua_gettop(L);
  for (lua_Integer i = 1; i <= n && !is_full(in); i++) {
    separate(in, &first);
    in->shown++;
    lua_rawgeti(L, keys, i);
    put_key(in, keys + 1, depth);
    lua_pushvalue(L, keys + 1);
    lua_rawget(L, table);
    put(in, keys + 2, depth);
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
  if (shown < listed || n == ITEMS_MAX || in->scanned > SCAN_MAX || is_full(in)) buf_puts(in->out, ", …");
}

static void put_table(struct inspector *in, int index, int depth) {
  lua_State *L = in->L;
  if (depth >= DEPTH_MAX) {
    buf_puts(in->out, "{…}");
    return;
  }
  for (int i = 0; i < depth; i++) {
    if (lua_rawequal(L, in->open[i], index)) {
      buf_puts(in->out, "{cycle}");
      return;
    }
  }
  in->open[depth] = index;
  buf_putc(in->out, '{');
  put_items(in, index, depth + 1);
  buf_putc(in->out, '}');
}

static void put_function(struct inspector *in, int index) {
  lua_Debug ar;
  lua_pushvalue(in->L, index);
  lua_getinfo(in->L, ">S", &ar);
  if (*ar.what == 'C') {
    buf_puts(in->out, "<function>");
  } else {
    buf_printf(in->out, "<function %s:%d>", ar.short_src, ar.linedefined);
  }
}

static void put(struct inspector *in, int index, int depth) {
  lua_State *L = in->L;
  size_t n;
  const char *s;
  if (!lua_checkstack(L, 12)) return;
  switch (lua_type(L, index)) {
  case LUA_TNIL: buf_puts(in->out, "nil"); return;
  case LUA_TBOOLEAN: buf_puts(in->out, lua_toboolean(L, index) ? "true" : "false"); return;
  case LUA_TNUMBER: put_number(in, index); return;
  case LUA_TSTRING:
    s = lua_tolstring(L, index, &n);
    put_bytes(in->out, s, n);
    return;
  case LUA_TLIGHTUSERDATA: in->handle(L, index, in->out); return;
  case LUA_TTABLE: put_table(in, index, depth); return;
  case LUA_TFUNCTION: put_function(in, index); return;
  default: buf_printf(in->out, "<%s>", luaL_typename(L, index));
  }
}

static int free_buf(lua_State *L) {
  buf_finish(lua_touserdata(L, 1));
  return 0;
}

void inspect_push(lua_State *L, int index, inspect_handle *handle) {
  luaL_checkstack(L, 20, NULL);
  index = lua_absindex(L, index);
  struct buf *out = lua_newuserdatauv(L, sizeof *out, 0);
  int top = lua_gettop(L);
  *out = BUF_INIT;
  if (luaL_newmetatable(L, "inspect")) {
    lua_pushcfunction(L, free_buf);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, top);
  struct inspector in = {.L = L, .out = out, .handle = handle};
  put(&in, index, 0);
  if (!buf_ok(out)) luaL_error(L, "out of memory");
  lua_pushlstring(L, out->data, out->len);
  buf_finish(out);
  lua_replace(L, top);
}
