/* string.format, os.date and utf8.len.  Lua's own functions do the short work.  The long work is done by Lua
 * code, piece by piece, so that it can be preempted. */
#include "vm/stdlib/yielding.h"

#include "vm/lua/pieces.h"
#include "vm/lua/yield.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* --- quoting --- */

enum { QUOTED = 4 }; /* bytes that one byte becomes at most */

/* Writes a byte as %q writes it, and returns the length; `next` is the byte behind it. */
static size_t quote_byte(char out[QUOTED + 1], char c, char next) {
  unsigned char byte = (unsigned char)c;
  if (c == '"' || c == '\\' || c == '\n') {
    out[0] = '\\', out[1] = c;
    return 2;
  }
  if (iscntrl(byte))
    return (size_t)snprintf(out, QUOTED + 1, isdigit((unsigned char)next) ? "\\%03d" : "\\%d", byte);
  out[0] = c;
  return 1;
}

struct quote {
  size_t at;    /* in the string */
  size_t total; /* length of the result */
};

/* Stack: the string, the state, and the pieces once the length of the result is known. */
static int quote_on(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  size_t len;
  const char *s = lua_tolstring(L, 1, &len);
  struct quote *q = lua_touserdata(L, 2);
  struct pieces *p = lua_touserdata(L, 3);
  char out[QUOTED + 1];
  while (q->at < len) {
    size_t end = len - q->at < PIECE / QUOTED ? len : q->at + PIECE / QUOTED;
    for (; q->at < end; q->at++) {
      size_t n = quote_byte(out, s[q->at], s[q->at + 1]);
      q->total += n;
      if (!p) continue;
      memcpy(p->bytes + p->at, out, n);
      p->at += n;
    }
    if (yield_due(L)) return lua_yieldk(L, 0, 0, quote_on);
  }
  if (!p) {
    p = pieces_push(L, q->total + 2);
    p->bytes[p->at++] = '"';
    q->at = 0;
    return quote_on(L, LUA_OK, 0);
  }
  p->bytes[p->at] = '"';
  pieces_finish(L, 3);
  return 1;
}

static int quote(lua_State *L) {
  lua_settop(L, 1);
  struct quote *q = lua_newuserdatauv(L, sizeof *q, 0);
  *q = (struct quote){0};
  return quote_on(L, LUA_OK, 0);
}

/* --- long work --- */

/* The arguments of the chunk are quote, and the library's original functions.  Here the library has the
 * functions that can be suspended.  Level 3 of an error is the code that has called the library.  An item of
 * a format is at most 32 bytes long. */
static const char source[] =
    "local quote, own_format, own_date, own_len, loaded = ...\n"
    "local string, concat, pack = loaded.string, loaded.table.concat, loaded.table.pack\n"
    "local find, sub, match, gsub, byte = string.find, string.sub, string.match, string.gsub, string.byte\n"
    "local error, pcall, type, now = loaded._G.error, loaded._G.pcall, loaded._G.type, loaded.os.time\n"
    "local function fail(text, name, arg)\n"
    "  error(gsub(text, \"^bad argument #(%d+) to '%?'\", \"bad argument #\" .. (arg or '%1') .. \" to '\" "
    ".. name .. \"'\"), 4)\n"
    "end\n"
    "local function as_it_is(item, v)\n"
    "  if type(v) ~= 'string' then return false end\n"
    "  return item == '%s' or #v > 65536 and match(item, '^%%[^.]*s$') and not find(v, '\\0', 1, true)\n"
    "end\n"
    "local function format(text, ...)\n"
    "  local args, parts, n, at, arg = pack(...), {}, 0, 1, 0\n"
    "  while true do\n"
    "    local i = find(text, '%', at, true)\n"
    "    n = n + 1\n"
    "    parts[n] = sub(text, at, (i or 0) - 1)\n"
    "    if not i then return concat(parts) end\n"
    "    local item = sub(text, i, i + 31)\n"
    "    item = match(item, '^%%[-+ #0-9.]*.') or item\n"
    "    at = i + #item\n"
    "    local v = args[arg + 1]\n"
    "    local ok, made = true, '%'\n"
    "    if item ~= '%%' then\n"
    "      arg = arg + 1\n"
    "      if as_it_is(item, v) then made = v\n"
    "      elseif item == '%q' and type(v) == 'string' then made = quote(v)\n"
    "      elseif arg > args.n then ok, made = pcall(own_format, item)\n"
    "      else ok, made = pcall(own_format, item, v)\n"
    "      end\n"
    "      if not ok then fail(made, 'format', arg + 1) end\n"
    "    end\n"
    "    n = n + 1\n"
    "    parts[n] = made\n"
    "  end\n"
    "end\n"
    /* The place behind the last whole item of a piece, whose first 4000 bytes are complete. */
    "local function whole(piece)\n"
    "  local i = 1\n"
    "  while i <= 4000 do\n"
    "    local p = find(piece, '%', i, true)\n"
    "    if not p then return #piece + 1 end\n"
    "    if p > 4000 then return p end\n"
    "    i = p + (find(piece, '^[EO]', p + 1) and 3 or 2)\n"
    "  end\n"
    "  return i\n"
    "end\n"
    /* A blank before each piece: a '!' or '*t' that begins a later piece means nothing. */
    "local function date(text, time)\n"
    "  time = time or now()\n"
    "  local utc = byte(text) == 33 and '! ' or ' '\n"
    "  local parts, n, at = {}, 0, #utc\n"
    "  while at <= #text do\n"
    "    local piece = sub(text, at, at + 4002)\n"
    "    if at + 4002 < #text then piece = sub(piece, 1, whole(piece) - 1) end\n"
    "    local ok, made = pcall(own_date, utc .. piece, time)\n"
    "    if not ok then fail(made, 'date') end\n"
    "    n = n + 1\n"
    "    parts[n] = sub(made, 2)\n"
    "    at = at + #piece\n"
    "  end\n"
    "  return concat(parts)\n"
    "end\n"
    /* A piece ends before a byte that begins a character.  A longer run of bytes that do not is an error
       within the piece. */
    "local function len(s, i, j, lax)\n"
    "  local n = 0\n"
    "  while i <= j do\n"
    "    local last = i + 65535\n"
    "    if last > j then last = j end\n"
    "    while last < j and last < i + 65600 and byte(s, last + 1) & 0xc0 == 0x80 do last = last + 1 end\n"
    "    local some, place = own_len(s, i, last, lax)\n"
    "    if not some then return some, place end\n"
    "    n = n + some\n"
    "    i = last + 1\n"
    "  end\n"
    "  return n\n"
    "end\n"
    "return {format = format, date = date, len = len}\n";

/* Upvalues of the functions. */
enum { ORIGINAL = 1 };

static int original(lua_State *L) {
  return lua_tocfunction(L, lua_upvalueindex(ORIGINAL))(L);
}

static int results(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

/* The key in the registry of an original function that is kept for the chunk. */
static const char kept[] = "FDL";

/* Pushes one of the functions of the chunk, which is compiled on first use. */
static void push_ours(lua_State *L, const char *name) {
  luaL_checkstack(L, 10, NULL);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, source) != LUA_TTABLE) {
    lua_pop(L, 1);
    if (luaL_loadbufferx(L, source, sizeof source - 1, "=text", "t") != LUA_OK) lua_error(L);
    lua_pushcfunction(L, quote);
    for (const char *k = kept; *k; k++) lua_rawgetp(L, LUA_REGISTRYINDEX, k);
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_call(L, 5, 1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, source);
  }
  lua_getfield(L, -1, name);
  lua_replace(L, -2);
}

/* Calls one of the functions of the chunk with the arguments on the stack. */
static int call_ours(lua_State *L, const char *name) {
  push_ours(L, name);
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, results);
  return results(L, LUA_OK, 0);
}

/* --- string.format --- */

/* Where a call is in the format: behind a conversion, whose argument is `arg`. */
struct place {
  size_t at;
  int arg;
};

/* As the context of a continuation.  The stack has fewer than 2^ARG_BITS values. */
enum { ARG_BITS = 20 };

static lua_KContext as_context(struct place p) {
  return (lua_KContext)p.at << ARG_BITS | p.arg;
}

static struct place as_place(lua_KContext context) {
  return (struct place){(size_t)(context >> ARG_BITS), (int)(context & ((1 << ARG_BITS) - 1))};
}

/* Moves behind the next %s that has an argument; false: there is none.  Every conversion has one argument. */
static bool next_text(lua_State *L, struct place *place) {
  const char *text = lua_tostring(L, 1), *p = text + place->at;
  while ((p = strchr(p, '%'))) {
    p += 1 + strspn(p + 1, "-+ #0123456789.");
    char kind = *p;
    if (kind) p++;
    if (kind != '%') place->arg++;
    if (kind != 's') continue;
    place->at = (size_t)(p - text);
    return place->arg <= lua_gettop(L);
  }
  return false;
}

static bool is_long(lua_State *L, int arg) {
  return lua_type(L, arg) == LUA_TSTRING && lua_rawlen(L, arg) > PIECE;
}

static int finish_format(lua_State *L) {
  for (int i = lua_gettop(L); i > 0; i--)
    if (is_long(L, i)) return call_ours(L, "format");
  return original(L);
}

static int format_called(lua_State *L, int status, lua_KContext context);

static int format_from(lua_State *L, struct place place);

static int format_woken(lua_State *L, int status, lua_KContext context) {
  (void)status;
  return format_from(L, as_place(context));
}

enum { BATCH = 1000 }; /* texts between two questions whether to yield */

static int format_from(lua_State *L, struct place place) {
  for (int n = 1; next_text(L, &place); n++) {
    if (lua_type(L, place.arg) == LUA_TTABLE && yielding_text(L, place.arg, as_context(place), format_called))
      yielding_text_done(L, place.arg);
    if (n % BATCH == 0 && yield_due(L)) return lua_yieldk(L, 0, as_context(place), format_woken);
  }
  return finish_format(L);
}

static int format_called(lua_State *L, int status, lua_KContext context) {
  (void)status;
  struct place place = as_place(context);
  yielding_text_done(L, place.arg);
  return format_from(L, place);
}

static int format(lua_State *L) {
  bool tables = false;
  for (int i = lua_gettop(L); i > 1 && !tables; i--) tables = lua_istable(L, i);
  if (tables && lua_tostring(L, 1)) return format_from(L, (struct place){0, 1});
  return finish_format(L);
}

/* --- os.date and utf8.len --- */

static int date(lua_State *L) {
  return is_long(L, 1) ? call_ours(L, "date") : original(L);
}

/* Lua's own function raises the errors of arguments. */
static int len(lua_State *L) {
  int first = 1, last = 1;
  if (!is_long(L, 1)) return original(L);
  lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  lua_Integer i = lua_isnoneornil(L, 2) ? 1 : lua_tointegerx(L, 2, &first);
  lua_Integer j = lua_isnoneornil(L, 3) ? -1 : lua_tointegerx(L, 3, &last);
  if (i < 0) i = i < -n ? 0 : n + i + 1;
  if (j < 0) j = j < -n ? 0 : n + j + 1;
  if (!first || !last || i < 1 || i > n + 1 || j > n) return original(L);
  bool lax = lua_toboolean(L, 4);
  lua_settop(L, 1);
  lua_pushinteger(L, i);
  lua_pushinteger(L, j);
  lua_pushboolean(L, lax);
  return call_ours(L, "len");
}

/* Replaces a function of the library at the top, and keeps the original for the chunk. */
static void replace(lua_State *L, const char *name, lua_CFunction ours, const char *key) {
  lua_getfield(L, -1, name);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
  lua_pushcclosure(L, ours, 1);
  lua_setfield(L, -2, name);
}

void yielding_format(lua_State *L) {
  replace(L, "format", format, &kept[0]);
}
void yielding_os(lua_State *L) {
  replace(L, "date", date, &kept[1]);
}
void yielding_len(lua_State *L) {
  replace(L, "len", len, &kept[2]);
}
