/* The layout is that of lundump.c of Lua 5.4: sizes and ints are big-endian base 128, the last byte marked
 * with 0x80; strings are their size plus one, then bytes. Everything is checked against the end before it is
 * read, since the bytes may come from any peer. */
#include "vm/copy/bytecode.h"

#include <lauxlib.h>
#include <string.h>

struct cursor {
  const uint8_t *at, *end;
  bool bad;
};

static int writer(lua_State *L, const void *bytes, size_t n, void *out) {
  (void)L;
  buf_append(out, bytes, n);
  return !buf_ok(out);
}

bool bytecode_dump(lua_State *L, struct buf *out) {
  return lua_dump(L, writer, out, 0) == 0 && buf_ok(out);
}

bool bytecode_header(lua_State *L, struct buf *out) {
  struct buf dump = BUF_INIT;
  bool ok = luaL_loadstring(L, "") == LUA_OK && bytecode_dump(L, &dump) && dump.len > BYTECODE_HEADER;
  lua_pop(L, 1);
  if (ok) buf_append(out, dump.data, BYTECODE_HEADER);
  buf_finish(&dump);
  return ok && buf_ok(out);
}

/* --- walking --- */

static void skip(struct cursor *c, size_t n) {
  if (c->bad || n > (size_t)(c->end - c->at)) {
    c->bad = true;
  } else {
    c->at += n;
  }
}

static uint8_t byte(struct cursor *c) {
  skip(c, 1);
  return c->bad ? 0 : c->at[-1];
}

static size_t size(struct cursor *c) {
  size_t x = 0;
  for (int i = 0; i < 10 && !c->bad; i++) {
    uint8_t b = byte(c);
    x = x << 7 | (b & 0x7f);
    if (b & 0x80) return x;
  }
  c->bad = true;
  return 0;
}

static void skip_items(struct cursor *c, size_t each) {
  size_t n = size(c);
  if (n > (size_t)(c->end - c->at)) c->bad = true;
  skip(c, c->bad ? 0 : n * each);
}

static void skip_string(struct cursor *c) {
  size_t n = size(c);
  if (n > 0) skip(c, n - 1);
}

/* A constant begins with its variant tag (lobject.h). */
static void skip_constant(struct cursor *c) {
  switch (byte(c)) {
  case LUA_TNIL:
  case LUA_TBOOLEAN:
  case LUA_TBOOLEAN | 1 << 4: return;
  case LUA_TNUMBER: skip(c, sizeof(lua_Integer)); return;
  case LUA_TNUMBER | 1 << 4: skip(c, sizeof(lua_Number)); return;
  case LUA_TSTRING:
  case LUA_TSTRING | 1 << 4: skip_string(c); return;
  default: c->bad = true;
  }
}

static void skip_debug(struct cursor *c) {
  skip_items(c, 1); /* line of each instruction */
  for (size_t n = size(c); n > 0 && !c->bad; n--) size(c), size(c);
  for (size_t n = size(c); n > 0 && !c->bad; n--) skip_string(c), size(c), size(c);
  for (size_t n = size(c); n > 0 && !c->bad; n--) skip_string(c);
}

enum { NESTING_MAX = 200 };

/* Skips the part of a function before its inner functions. */
static void skip_front(struct cursor *c, const uint8_t **upvalues, size_t *count) {
  skip_string(c);
  size(c), size(c);
  skip(c, 3);
  skip_items(c, 4);
  for (size_t n = size(c); n > 0 && !c->bad; n--) skip_constant(c);
  *count = size(c);
  *upvalues = c->at;
  if (*count > 255) c->bad = true;
  skip(c, *count * 3);
}

static void skip_function(struct cursor *c, int depth) {
  const uint8_t *upvalues;
  size_t count;
  if (depth > NESTING_MAX) c->bad = true;
  skip_front(c, &upvalues, &count);
  for (size_t n = size(c); n > 0 && !c->bad; n--) skip_function(c, depth + 1);
  skip_debug(c);
}

/* Walks over a body that begins at `at`.  Returns its end, or NULL when the body is damaged or does not end
 * before `end`.  *upvalues gets the offset of the first of its *count upvalue descriptions. */
static const uint8_t *walk_body(const uint8_t *at, const uint8_t *end, size_t *upvalues, uint32_t *count) {
  struct cursor front = {at, end, false}, whole = front;
  const uint8_t *descriptions;
  size_t n;
  skip_front(&front, &descriptions, &n);
  skip_function(&whole, 0);
  if (front.bad || whole.bad) return NULL;
  *upvalues = (size_t)(descriptions - at);
  *count = (uint32_t)n;
  return whole.at;
}

/* --- factories --- */

/* `local u1,…,un return function() return u1,…,un end`: the inner function has n upvalues, and the outer one
 * the instructions that make it. */
static bool template_source(struct buf *out, uint32_t n) {
  for (int pass = 0; pass < 2; pass++) {
    if (pass == 0 && n > 0) buf_puts(out, "local ");
    for (uint32_t i = 0; i < n; i++) buf_printf(out, "%su%u", i ? "," : "", i);
    if (pass == 0) buf_puts(out, " return function() return ");
  }
  buf_puts(out, " end");
  return buf_ok(out);
}

/* Writes the template with the body in the place of its inner function, and binds upvalue i of the body to
 * local i of the template. */
static bool splice(const struct buf *template, const uint8_t *body, size_t len, size_t upvalues,
                   uint32_t count, struct buf *out) {
  const uint8_t *start = (const uint8_t *)template->data;
  struct cursor c = {start + BYTECODE_BODY, start + template->len, false};
  const uint8_t *ignored;
  size_t none;
  skip_front(&c, &ignored, &none);
  if (size(&c) != 1) return false;
  const uint8_t *inner = c.at;
  skip_function(&c, 0);
  if (c.bad) return false;
  buf_append(out, start, (size_t)(inner - start));
  size_t at = out->len;
  buf_append(out, body, len);
  buf_append(out, c.at, (size_t)(c.end - c.at));
  if (!buf_ok(out)) return false;
  uint8_t *bound = (uint8_t *)out->data + at + upvalues;
  for (uint32_t i = 0; i < count; i++) bound[3 * i] = 1, bound[3 * i + 1] = (uint8_t)i;
  return true;
}

/* Pushes the factory. */
static const char *build(lua_State *L, const uint8_t *body, size_t len, size_t upvalues, uint32_t count,
                         struct buf *source, struct buf *template, struct buf *chunk) {
  if (!template_source(source, count)) return "out of memory";
  int rc = luaL_loadbufferx(L, source->data, source->len, "=factory", "t");
  bool ok = rc == LUA_OK && bytecode_dump(L, template);
  lua_pop(L, 1);
  if (!ok || !splice(template, body, len, upvalues, count, chunk)) return "out of memory";
  if (luaL_loadbufferx(L, chunk->data, chunk->len, "=factory", "b") == LUA_OK) return NULL;
  lua_pop(L, 1);
  return "a function is damaged";
}

const char *bytecode_factory(lua_State *L, const uint8_t *body, size_t len, uint32_t *upvalues) {
  size_t at = 0;
  uint32_t count = 0;
  if (walk_body(body, body + len, &at, &count) != body + len) return "a function is damaged";
  if (count > BYTECODE_UPVALUES_MAX) return "a function has too many upvalues";
  struct buf source = BUF_INIT, template = BUF_INIT, chunk = BUF_INIT;
  const char *problem = build(L, body, len, at, count, &source, &template, &chunk);
  buf_finish(&source);
  buf_finish(&template);
  buf_finish(&chunk);
  if (!problem) *upvalues = count;
  return problem;
}
