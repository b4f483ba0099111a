/* Trees go through JSON text, so that each rule about values is written once: in json_write.c and
 * json_read.c. */
#include "wire/json.h"

#include "base/text.h"
#include "wire/base64.h"

/* --- bytes --- */

static json_t *base64(const void *bytes, size_t n) {
  struct buf text = BUF_INIT;
  base64_encode(&text, bytes, n);
  json_t *v = buf_ok(&text) ? json_stringn_nocheck(text.data ? text.data : "", text.len) : NULL;
  buf_finish(&text);
  return v;
}

json_t *json_from_bytes(const void *bytes, size_t n) {
  if (text_utf8(bytes, n)) return json_stringn_nocheck(n ? bytes : "", n);
  return json_pack("{s:o}", "$bytes", base64(bytes, n));
}

int json_to_bytes(const json_t *v, struct buf *out) {
  if (json_is_string(v)) {
    buf_append(out, json_string_value(v), json_string_length(v));
    return 0;
  }
  if (json_object_size(v) != 1) return ERR_BAD_VALUE;
  const json_t *text = json_object_get(v, "$bytes");
  bool good = json_is_string(text) && base64_decode(out, json_string_value(text), json_string_length(text));
  return good ? 0 : ERR_BAD_VALUE;
}

/* --- terms --- */

json_t *json_from_value(const struct nodetab *nodes, struct term_reader *r) {
  struct error ignored;
  struct buf text = BUF_INIT;
  json_put_value(&text, nodes, r);
  json_t *v = buf_ok(&text) ? json_parse_loose(text.data, text.len, &ignored) : NULL;
  buf_finish(&text);
  return v;
}

static int no_memory(struct error *e) {
  return error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}

static struct json_source source_of(const struct buf *text) {
  return (struct json_source){text->data, text->data, text->data + text->len};
}

int json_to_value(struct nodetab *nodes, const json_t *v, enum json_policy policy, struct term_writer *w,
                  struct error *e) {
  struct buf text = BUF_INIT;
  json_line(&text, v);
  struct json_source s = source_of(&text);
  int rc = buf_ok(&text) ? json_get_value(&s, nodes, policy, w, e) : no_memory(e);
  buf_finish(&text);
  return rc;
}

int json_to_term(struct nodetab *nodes, const json_t *array, enum json_policy policy, struct term **out,
                 struct error *e) {
  struct buf text = BUF_INIT;
  struct term_writer w = TERM_WRITER_INIT;
  uint32_t count = 0;
  json_line(&text, array);
  struct json_source s = source_of(&text);
  int rc = buf_ok(&text) ? json_get_values(&s, nodes, policy, &w, &count, e) : no_memory(e);
  buf_finish(&text);
  struct term *t = rc ? NULL : term_from_writer(&w, count);
  term_writer_finish(&w);
  if (!rc && !t) rc = no_memory(e);
  if (t) *out = t;
  return rc;
}
