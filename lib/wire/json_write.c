/* Writes JSON text from the bytes of a term, without a tree: for a message between nodes, a tree costs more
 * than all other work together.  json_read.c reads each form that is written here. */
#include "wire/json.h"

#include "base/text.h"
#include "wire/base64.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char short_escapes[] = {
    ['"'] = '"', ['\\'] = '\\', ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};

/* Puts a quote, a backslash or a control character. */
static void put_escaped(struct buf *out, unsigned char c) {
  static const char hex[] = "0123456789ABCDEF";
  if (c < sizeof short_escapes && short_escapes[c]) {
    char two[2] = {'\\', short_escapes[c]};
    buf_append(out, two, sizeof two);
  } else {
    char six[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    buf_append(out, six, sizeof six);
  }
}

/* Puts "text"; the bytes must be UTF-8. */
static void put_text(struct buf *out, const char *s, size_t n) {
  buf_putc(out, '"');
  for (size_t plain; n; s += plain, n -= plain) {
    plain = text_plain(s, n);
    while (plain < n && (unsigned char)s[plain] >= 0x80)
      plain += 1 + text_plain(s + plain + 1, n - plain - 1);
    buf_append(out, s, plain);
    if (plain < n) put_escaped(out, (unsigned char)s[plain++]);
  }
  buf_putc(out, '"');
}

/* Puts "text" of bytes that need no escape. */
static void put_plain(struct buf *out, const char *s, size_t n) {
  if (!buf_reserve(out, n + 2)) return;
  char *at = out->data + out->len;
  *at++ = '"';
  if (n) memcpy(at, s, n);
  at[n] = '"';
  at[n + 1] = 0;
  out->len += n + 2;
}

static void put_base64(struct buf *out, const char *form, const void *bytes, size_t n) {
  buf_puts(out, form);
  base64_encode(out, bytes, n);
  buf_puts(out, "\"}");
}

/* Would "text" be longer than base64?  Only control characters make it so, each with six bytes. */
static bool base64_is_shorter(const char *s, size_t n) {
  enum { FORM = sizeof "{\"$bytes\":\"\"}" };
  size_t control = 0, most = (n / 3 + FORM) / 5;
  if (n < FORM) return false;
  for (size_t i = 0; i < n && control <= most; i++)
    control += (unsigned char)s[i] < ' ' && s[i] != '\n' && s[i] != '\t' && s[i] != '\r';
  return control > most;
}

void json_put_bytes(struct buf *out, const char *s, size_t n) {
  if (text_plain(s, n) == n) {
    put_plain(out, s, n);
    return;
  }
  if (text_utf8(s, n) && !base64_is_shorter(s, n))
    put_text(out, s, n);
  else
    put_base64(out, "{\"$bytes\":\"", s, n);
}

void json_put_int(struct buf *out, int64_t i) {
  char digits[20], *at = digits + sizeof digits;
  uint64_t left = i < 0 ? -(uint64_t)i : (uint64_t)i;
  do *--at = (char)('0' + left % 10);
  while (left /= 10);
  if (i < 0) *--at = '-';
  buf_append(out, at, (size_t)(digits + sizeof digits - at));
}

/* 17 digits always read back as the same number; fewer may, so that 0.1 stays 0.1. */
void json_put_real(struct buf *out, double d) {
  char text[32];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, d);
    if (strtod(text, NULL) == d) break;
  }
  for (char *s = text; *s; s++)
    if (*s == ',') *s = '.'; /* printf uses the decimal comma of the locale */
  buf_puts(out, text);
  if (!strpbrk(text, ".e")) buf_puts(out, ".0");
}

static void put_float(struct buf *out, double d) {
  if (isfinite(d))
    json_put_real(out, d);
  else
    buf_printf(out, "{\"$float\":\"%s\"}", isnan(d) ? "nan" : d > 0 ? "inf" : "-inf");
}

static void put_pid(struct buf *out, const struct nodetab *nodes, npid p) {
  char text[NPID_TEXT_SIZE];
  buf_puts(out, npid_is_ref(p) ? "{\"$ref\":\"" : "{\"$pid\":\"");
  buf_puts(out, npid_format(nodes, p, NPID_BARE, text));
  buf_puts(out, "\"}");
}

static void put_list(struct buf *out, const struct nodetab *nodes, struct term_reader *r, uint32_t count) {
  buf_putc(out, '[');
  for (uint32_t i = 0; i < count; i++) {
    if (i) buf_putc(out, ',');
    json_put_value(out, nodes, r);
  }
  buf_putc(out, ']');
}

/* {"$map": [[key, value], …]} */
static void put_pairs(struct buf *out, const struct nodetab *nodes, struct term_reader *r, uint32_t count) {
  buf_puts(out, "{\"$map\":[");
  for (uint32_t i = 0; i < count; i++) {
    if (i) buf_putc(out, ',');
    put_list(out, nodes, r, 2);
  }
  buf_puts(out, "]}");
}

/* Can all keys of a map be keys of a JSON object?  jansson refuses a NUL in a key. */
static bool keys_are_text(struct term_reader r, uint32_t count) {
  for (; count; count--, term_skip(&r)) {
    struct term_value key = term_next(&r);
    if (!text_utf8(key.s, key.len) || memchr(key.s, 0, key.len)) return false;
  }
  return true;
}

/* Puts a key, with one more '$' in front when it starts with '$'. */
static void put_key(struct buf *out, const char *s, size_t n) {
  size_t at = out->len;
  put_text(out, s, n);
  if (!n || *s != '$' || !buf_reserve(out, 1)) return;
  memmove(out->data + at + 2, out->data + at + 1, out->len - at - 1);
  out->data[at + 1] = '$';
  out->data[++out->len] = 0;
}

static void put_map(struct buf *out, const struct nodetab *nodes, struct term_reader *r, uint32_t count) {
  if (!keys_are_text(*r, count)) {
    put_pairs(out, nodes, r, count);
    return;
  }
  buf_putc(out, '{');
  for (uint32_t i = 0; i < count; i++) {
    struct term_value key = term_next(r);
    if (i) buf_putc(out, ',');
    put_key(out, key.s, key.len);
    buf_putc(out, ':');
    json_put_value(out, nodes, r);
  }
  buf_putc(out, '}');
}

void json_put_value(struct buf *out, const struct nodetab *nodes, struct term_reader *r) {
  struct term_value v = term_next(r);
  switch (v.tag) {
  case TERM_FALSE: buf_puts(out, "false"); return;
  case TERM_TRUE: buf_puts(out, "true"); return;
  case TERM_INT: json_put_int(out, v.i); return;
  case TERM_FLOAT: put_float(out, v.d); return;
  case TERM_STR: json_put_bytes(out, v.s, v.len); return;
  case TERM_LIST: put_list(out, nodes, r, v.count); return;
  case TERM_MAP: put_map(out, nodes, r, v.count); return;
  case TERM_TABLE: put_pairs(out, nodes, r, v.count); return;
  case TERM_PID:
  case TERM_REF: put_pid(out, nodes, v.pid); return;
  case TERM_FN: put_base64(out, "{\"$fn\":\"", v.s, v.len); return;
  case TERM_NIL:
  case TERM_END: break;
  }
  buf_puts(out, "null");
}

void json_put_term(struct buf *out, const struct nodetab *nodes, const struct term *t) {
  struct term_reader r = term_read(t);
  put_list(out, nodes, &r, t ? t->count : 0);
}
