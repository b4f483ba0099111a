/* Invariant: no function keeps a reference to a JSON value. */
#include "agent/api/document.h"

#include "wire/json.h"
#include "wire/octets.h"

#include <inttypes.h>
#include <string.h>

/* The word of the list for a key; what follows its *n characters says of which kind its values are.  NULL:
 * there is none. */
static const char *find_member(const char *members, const char *key, size_t *n) {
  for (const char *at = members; *at; at += strcspn(at, " "), at += *at == ' ') {
    *n = strcspn(at, "$ ");
    if (strlen(key) == *n && !memcmp(at, key, *n)) return at;
  }
  return NULL;
}

static int odd(const char *members, const char *key, struct error *e) {
  struct buf all = BUF_INIT;
  for (const char *at = members; *at; at += strcspn(at, " "), at += *at == ' ')
    buf_printf(&all, "%s\"%.*s\"", all.len ? ", " : "", (int)strcspn(at, "$ "), at);
  const char *list = buf_ok(&all) ? all.data : "other members";
  if (key)
    error_set(e, ERR_USAGE, "\"%s\": no such member: expected a JSON object of %s", key, list);
  else
    error_set(e, ERR_USAGE, "expected a JSON object of %s", list);
  buf_finish(&all);
  return ERR_USAGE;
}

int document_check(const json_t *body, const char *members, struct error *e) {
  const char *key;
  json_t *v;
  size_t n = 0;
  if (body && !json_is_object(body)) return odd(members, NULL, e);
  json_object_foreach((json_t *)(uintptr_t)body, key, v) {
    const char *word = find_member(members, key, &n);
    if (!word) return odd(members, key, e);
    bool text = json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v);
    if (word[n] == '$' && !text)
      return error_set(e, ERR_BAD_VALUE, "\"%s\": expected text, without NUL", key);
  }
  return 0;
}

json_t *document_pid(struct agent *a, npid pid) {
  char full[NPID_TEXT_SIZE], brief[NPID_TEXT_SIZE];
  return json_pack("{s:s, s:s}", "pid", npid_format(a->nodes, pid, NPID_BARE, full), "short",
                   npid_format(a->nodes, pid, NPID_SHORT, brief));
}

json_t *document_end(struct agent *a, const char *key, const struct term *reason, int status) {
  struct term_reader r = term_read(reason);
  json_t *value = reason ? json_from_value(a->nodes, &r) : json_null();
  return json_pack("{s:o, s:i}", key, value, "status", status);
}

void document_put_output(struct buf *out, bool octets, const struct output *o) {
  if (octets) {
    octets_put(out, o->is_stderr ? OCTETS_STDERR : OCTETS_STDOUT, o->bytes, o->n);
    return;
  }
  buf_puts(out, o->is_stderr ? "{\"stderr\":" : "{\"stdout\":");
  json_put_bytes(out, o->bytes, o->n);
  if (o->at) buf_printf(out, ",\"at\":%" PRId64, o->at);
  buf_puts(out, "}\n");
}

bool document_put_stop(struct buf *out, bool octets, const struct term *message) {
  struct term_reader r = term_read(message);
  struct buf text = BUF_INIT;
  int64_t number, stops;
  if (!term_is_word(message, "stopped")) return false;
  term_skip(&r), term_skip(&r);
  if (!term_get_int(&r, &number) || !term_get_int(&r, &stops)) return false;
  buf_printf(&text, "{\"stopped\":%" PRId64 ",\"stops\":%" PRId64 "}", number, stops);
  document_put_text(out, octets, &text);
  buf_finish(&text);
  return true;
}

void document_put_text(struct buf *out, bool octets, const struct buf *text) {
  if (octets) {
    octets_put(out, OCTETS_DOCUMENT, text->data, text->len);
    return;
  }
  buf_append(out, text->data, text->len);
  buf_putc(out, '\n');
}
