/* Trees of JSON and their text, and problem documents.  jansson prints reals with a fixed number of digits,
 * so they are printed by json_put_real. */
#include "wire/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- writing --- */

static int sink(const char *bytes, size_t n, void *data) {
  struct buf *out = data;
  buf_append(out, bytes, n);
  return buf_ok(out) ? 0 : -1;
}

static void write_scalar(struct buf *out, const json_t *v) {
  if (json_dump_callback(v, sink, out, JSON_ENCODE_ANY)) out->failed = true;
}

static void write_value(struct buf *out, const json_t *v);

static void write_array(struct buf *out, const json_t *v) {
  buf_putc(out, '[');
  for (size_t i = 0; i < json_array_size(v); i++) {
    if (i) buf_putc(out, ',');
    write_value(out, json_array_get(v, i));
  }
  buf_putc(out, ']');
}

static void write_key(struct buf *out, const char *key) {
  json_t *text = json_string_nocheck(key);
  if (text)
    write_scalar(out, text);
  else
    out->failed = true;
  json_decref(text);
}

static void write_object(struct buf *out, const json_t *v) {
  const char *key;
  json_t *member;
  char before = '{';
  json_object_foreach((json_t *)(uintptr_t)v, key, member) {
    buf_putc(out, before);
    write_key(out, key);
    buf_putc(out, ':');
    write_value(out, member);
    before = ',';
  }
  buf_puts(out, before == '{' ? "{}" : "}");
}

static void write_value(struct buf *out, const json_t *v) {
  if (!v)
    out->failed = true; /* memory ran out when the tree was made */
  else if (json_is_array(v))
    write_array(out, v);
  else if (json_is_object(v))
    write_object(out, v);
  else if (json_is_real(v))
    json_put_real(out, json_real_value(v));
  else
    write_scalar(out, v);
}

void json_line(struct buf *out, const json_t *v) {
  write_value(out, v);
  buf_putc(out, '\n');
}

/* --- reading --- */

static json_t *load(const char *text, size_t n, size_t flags, struct error *e) {
  json_error_t wrong;
  json_t *v = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL | flags, &wrong);
  if (v) return v;
  if (json_error_code(&wrong) == json_error_out_of_memory)
    error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  else if (wrong.line > 1)
    error_set(e, ERR_BAD_JSON, "not JSON: line %d, column %d: %s", wrong.line, wrong.column, wrong.text);
  else
    error_set(e, ERR_BAD_JSON, "not JSON: column %d: %s", wrong.column, wrong.text);
  return NULL;
}

json_t *json_parse(const char *text, size_t n, struct error *e) {
  return load(text, n, JSON_REJECT_DUPLICATES, e);
}

json_t *json_parse_loose(const char *text, size_t n, struct error *e) {
  return load(text, n, 0, e);
}

/* --- problem documents --- */

/* error_set has made the text UTF-8. */
json_t *json_problem(const struct error *e) {
  return json_pack("{s:s,s:s,s:i,s:s,s:i,s:o}", "type", "about:blank", "title", err_sentence(e->code),
                   "status", err_http(e->code), "code", err_wire(e->code), "exit", err_exit(e->code),
                   "detail", json_string_nocheck(error_text(e)));
}

static int plain_error(const char *body, size_t n, long status, struct error *e) {
  while (n && isspace((unsigned char)*body)) body++, n--;
  size_t line = 0;
  while (line < n && line < 200 && (unsigned char)body[line] >= ' ') line++;
  if (!line) return error_set(e, ERR_SYSTEM, "the answer is HTTP status %ld", status);
  return error_set(e, ERR_SYSTEM, "the answer is HTTP status %ld: %.*s", status, (int)line, body);
}

int json_to_error(const char *body, size_t n, long status, struct error *e) {
  json_t *problem = json_loadb(body ? body : "", body ? n : 0, 0, NULL);
  const char *code = json_string_value(json_object_get(problem, "code"));
  const char *detail = json_string_value(json_object_get(problem, "detail"));
  int rc = code ? err_from_wire(code) : ERR_SYSTEM;
  if (code)
    error_set(e, rc, "%s", detail ? detail : err_sentence(rc));
  else
    plain_error(body, body ? n : 0, status, e);
  json_decref(problem);
  return rc;
}
