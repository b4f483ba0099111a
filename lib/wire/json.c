/* Encode stands beside decode for each kind of value.  A `$` object is the one thing JSON cannot say by
 * itself; `forms` lists them all.  Depth is bounded by TERM_DEPTH_MAX on the way in; terms are within it
 * already. */
#include "wire/json.h"

#include "base/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- from terms --- */

/* {key: value}; takes the value, which may be NULL when memory ran out. */
static json_t *tagged(const char *key, json_t *value) {
  json_t *object = value ? json_object() : NULL;
  if (!object) return json_decref(value), NULL;
  if (json_object_set_new_nocheck(object, key, value) == 0) return object;
  return json_decref(object), NULL;
}

static json_t *tagged_base64(const char *key, const void *bytes, size_t n) {
  struct buf text = BUF_INIT;
  text_base64(&text, bytes, n);
  json_t *v = buf_ok(&text) ? json_stringn_nocheck(text.data ? text.data : "", text.len) : NULL;
  buf_finish(&text);
  return tagged(key, v);
}

json_t *json_from_bytes(const void *bytes, size_t n) {
  if (text_utf8(bytes, n)) return json_stringn_nocheck(n ? bytes : "", n);
  return tagged_base64("$bytes", bytes, n);
}

static json_t *from_float(double d) {
  if (isfinite(d)) return json_real(d);
  return tagged("$float", json_string_nocheck(isnan(d) ? "nan" : d > 0 ? "inf" : "-inf"));
}

static json_t *from_pid(const struct nodetab *nodes, npid p) {
  char text[NPID_TEXT_SIZE];
  return tagged(npid_is_ref(p) ? "$ref" : "$pid",
                json_string_nocheck(npid_format(nodes, p, NPID_BARE, text)));
}

static json_t *from_list(const struct nodetab *nodes, struct term_reader *r, uint32_t count) {
  json_t *array = json_array();
  for (uint32_t i = 0; array && i < count; i++)
    if (json_array_append_new(array, json_from_value(nodes, r))) json_decref(array), array = NULL;
  return array;
}

/* {"$map": [[key, value], …]} */
static json_t *from_pairs(const struct nodetab *nodes, struct term_reader *r, uint32_t count) {
  json_t *pairs = json_array();
  for (uint32_t i = 0; pairs && i < count; i++)
    if (json_array_append_new(pairs, from_list(nodes, r, 2))) json_decref(pairs), pairs = NULL;
  return tagged("$map", pairs);
}

/* Can all keys of a map be keys of a JSON object? jansson takes no NUL there. */
static bool keys_are_text(struct term_reader r, uint32_t count) {
  for (; count; count--, term_skip(&r)) {
    struct term_value key = term_next(&r);
    if (!text_utf8(key.s, key.len) || memchr(key.s, 0, key.len)) return false;
  }
  return true;
}

static int set_member(json_t *object, const struct term_value *key, json_t *value) {
  struct buf name = BUF_INIT;
  if (key->len && key->s[0] == '$') buf_putc(&name, '$');
  buf_append(&name, key->s, key->len);
  int rc = -1;
  if (buf_ok(&name))
    rc = json_object_set_new_nocheck(object, name.data, value);
  else
    json_decref(value);
  buf_finish(&name);
  return rc;
}

static json_t *from_map(const struct nodetab *nodes, struct term_reader *r, uint32_t count) {
  if (!keys_are_text(*r, count)) return from_pairs(nodes, r, count);
  json_t *object = json_object();
  for (uint32_t i = 0; object && i < count; i++) {
    struct term_value key = term_next(r);
    if (set_member(object, &key, json_from_value(nodes, r))) json_decref(object), object = NULL;
  }
  return object;
}

json_t *json_from_value(const struct nodetab *nodes, struct term_reader *r) {
  struct term_value v = term_next(r);
  switch (v.tag) {
  case TERM_FALSE: return json_false();
  case TERM_TRUE: return json_true();
  case TERM_INT: return json_integer(v.i);
  case TERM_FLOAT: return from_float(v.d);
  case TERM_STR: return json_from_bytes(v.s, v.len);
  case TERM_LIST: return from_list(nodes, r, v.count);
  case TERM_MAP: return from_map(nodes, r, v.count);
  case TERM_TABLE: return from_pairs(nodes, r, v.count);
  case TERM_PID:
  case TERM_REF: return from_pid(nodes, v.pid);
  case TERM_FN: return tagged_base64("$fn", v.s, v.len);
  case TERM_NIL:
  case TERM_END: break;
  }
  return json_null();
}

json_t *json_from_term(const struct nodetab *nodes, const struct term *t) {
  struct term_reader r = term_read(t);
  return from_list(nodes, &r, t ? t->count : 0);
}

/* --- to terms --- */

/* On failure each level puts its step in front of the path, so a good value pays nothing for it. */
struct decoder {
  struct nodetab *nodes;
  enum json_policy policy;
  struct term_writer *w;
  int depth;
  char path[160];
  char wrong[240];
};

static int wrong(struct decoder *d, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int wrong(struct decoder *d, int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(d->wrong, sizeof d->wrong, format, args);
  va_end(args);
  return code;
}

static int step(struct decoder *d, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int step(struct decoder *d, int code, const char *format, ...) {
  char longer[sizeof d->path];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(longer, sizeof longer, format, args);
  va_end(args);
  if (n < 0 || n >= (int)sizeof longer) return code;
  snprintf(longer + n, sizeof longer - (size_t)n, "%s", d->path);
  memcpy(d->path, longer, sizeof longer);
  return code;
}

static int decode(struct decoder *d, const json_t *v);

static int decode_array(struct decoder *d, const json_t *v) {
  size_t n = json_array_size(v);
  size_t at = term_open(d->w, TERM_LIST);
  for (size_t i = 0; i < n; i++) {
    int rc = decode(d, json_array_get(v, i));
    if (rc) return step(d, rc, "[%zu]", i);
  }
  term_set_count(d->w, at, (uint32_t)n);
  return 0;
}

static int decode_object(struct decoder *d, const json_t *v) {
  const char *key;
  json_t *member;
  size_t at = term_open(d->w, TERM_MAP);
  json_object_foreach((json_t *)(uintptr_t)v, key, member) {
    if (key[0] == '$' && key[1] != '$')
      return wrong(d, ERR_BAD_VALUE, "\"%.80s\" means nothing here: a key that starts with $ is written $$",
                   key);
    term_put_text(d->w, key + (key[0] == '$'));
    int rc = decode(d, member);
    if (rc) return step(d, rc, ".%.40s", key);
  }
  term_set_count(d->w, at, (uint32_t)json_object_size(v));
  return 0;
}

static int unbase64(struct decoder *d, const json_t *v, const char *form, struct buf *out) {
  if (json_is_string(v) && text_unbase64(out, json_string_value(v), json_string_length(v))) return 0;
  return wrong(d, ERR_BAD_VALUE, "\"%s\" wants base64", form);
}

static int decode_bytes(struct decoder *d, const json_t *v) {
  struct buf bytes = BUF_INIT;
  int rc = unbase64(d, v, "$bytes", &bytes);
  if (rc == 0) term_put_str(d->w, bytes.data, bytes.len);
  buf_finish(&bytes);
  return rc;
}

static int decode_fn(struct decoder *d, const json_t *v) {
  if (d->policy != JSON_WITH_CODE)
    return wrong(d, ERR_BAD_VALUE, "\"$fn\": compiled code is not taken from clients");
  struct buf bytes = BUF_INIT;
  int rc = unbase64(d, v, "$fn", &bytes);
  if (rc == 0) term_put_fn(d->w, bytes.data, bytes.len);
  buf_finish(&bytes);
  return rc;
}

static int decode_float(struct decoder *d, const json_t *v) {
  const struct {
    const char *text;
    double value;
  } floats[] = {{"nan", NAN}, {"inf", INFINITY}, {"-inf", -INFINITY}};
  for (size_t i = 0; json_is_string(v) && i < sizeof floats / sizeof *floats; i++)
    if (strcmp(json_string_value(v), floats[i].text) == 0) return term_put_float(d->w, floats[i].value), 0;
  return wrong(d, ERR_BAD_VALUE, "\"$float\" wants \"nan\", \"inf\" or \"-inf\"");
}

static int decode_identity(struct decoder *d, const json_t *v, const char *form, npid *out) {
  struct error e = {0};
  if (!json_is_string(v)) return wrong(d, ERR_BAD_VALUE, "\"%s\" wants a %s", form, form + 1);
  int rc = npid_parse(d->nodes, json_string_value(v), out, &e);
  if (rc == ERR_BAD_PID) return wrong(d, ERR_BAD_VALUE, "\"%s\" wants a %s", form, form + 1);
  return rc ? wrong(d, rc, "%.200s", error_text(&e)) : 0;
}

static int decode_pid(struct decoder *d, const json_t *v) {
  npid p = NPID_NONE;
  int rc = decode_identity(d, v, "$pid", &p);
  if (rc == 0) term_put_pid(d->w, p);
  return rc;
}

static int decode_ref(struct decoder *d, const json_t *v) {
  npid p = NPID_NONE;
  int rc = decode_identity(d, v, "$ref", &p);
  if (rc == 0) term_put_pid(d->w, npid_as_ref(p));
  return rc;
}

static bool is_bytes(const json_t *v) {
  return json_is_string(v) || (json_object_size(v) == 1 && json_object_get(v, "$bytes"));
}

static int decode_pairs(struct decoder *d, const json_t *v) {
  if (!json_is_array(v)) return wrong(d, ERR_BAD_VALUE, "\"$map\" wants an array of [key, value]");
  size_t n = json_array_size(v);
  bool strings = n > 0; /* keys that are all strings make a MAP: it was one that JSON's keys could not say */
  for (size_t i = 0; i < n; i++) {
    const json_t *pair = json_array_get(v, i);
    if (!json_is_array(pair) || json_array_size(pair) != 2 || json_is_null(json_array_get(pair, 0)))
      return step(d, wrong(d, ERR_BAD_VALUE, "\"$map\" wants an array of [key, value]"), "[%zu]", i);
    strings = strings && is_bytes(json_array_get(pair, 0));
  }
  size_t at = term_open(d->w, strings ? TERM_MAP : TERM_TABLE);
  for (size_t i = 0; i < 2 * n; i++) {
    int rc = decode(d, json_array_get(json_array_get(v, i / 2), i % 2));
    if (rc) return step(d, rc, "[%zu][%zu]", i / 2, i % 2);
  }
  term_set_count(d->w, at, (uint32_t)n);
  return 0;
}

static const struct form {
  const char *key;
  int (*decode)(struct decoder *d, const json_t *v);
} forms[] = {{"$pid", decode_pid},     {"$ref", decode_ref}, {"$bytes", decode_bytes},
             {"$float", decode_float}, {"$fn", decode_fn},   {"$map", decode_pairs}};

/* The form of an object whose only key is one of theirs, and its value. */
static const struct form *form_of(const json_t *v, const json_t **value) {
  if (json_object_size(v) != 1) return NULL;
  void *at = json_object_iter((json_t *)(uintptr_t)v);
  const char *key = json_object_iter_key(at);
  for (size_t i = 0; key[0] == '$' && i < sizeof forms / sizeof *forms; i++)
    if (strcmp(key, forms[i].key) == 0) return *value = json_object_iter_value(at), &forms[i];
  return NULL;
}

static int decode_container(struct decoder *d, const json_t *v) {
  if (d->depth == TERM_DEPTH_MAX)
    return wrong(d, ERR_TOO_LARGE, "values nest more than %d deep", TERM_DEPTH_MAX);
  const json_t *value;
  d->depth++;
  const struct form *form = json_is_object(v) ? form_of(v, &value) : NULL;
  int rc = form ? form->decode(d, value) : json_is_object(v) ? decode_object(d, v) : decode_array(d, v);
  d->depth--;
  return rc;
}

static int decode(struct decoder *d, const json_t *v) {
  switch (json_typeof(v)) {
  case JSON_NULL: term_put_nil(d->w); break;
  case JSON_FALSE:
  case JSON_TRUE: term_put_bool(d->w, json_is_true(v)); break;
  case JSON_INTEGER: term_put_int(d->w, json_integer_value(v)); break;
  case JSON_REAL: term_put_float(d->w, json_real_value(v)); break;
  case JSON_STRING: term_put_str(d->w, json_string_value(v), json_string_length(v)); break;
  case JSON_ARRAY:
  case JSON_OBJECT: return decode_container(d, v);
  }
  return d->w->failed ? wrong(d, d->w->failed, "%s", err_sentence(d->w->failed)) : 0;
}

int json_to_value(struct nodetab *nodes, const json_t *v, enum json_policy policy, struct term_writer *w,
                  struct error *e) {
  struct decoder d = {.nodes = nodes, .policy = policy, .w = w};
  int rc = decode(&d, v);
  if (rc == 0 && w->failed) rc = wrong(&d, w->failed, "%s", err_sentence(w->failed));
  return rc ? error_set(e, rc, "%s%s%s", d.path, d.path[0] ? ": " : "", d.wrong) : 0;
}

int json_to_term(struct nodetab *nodes, const json_t *array, enum json_policy policy, struct term **out,
                 struct error *e) {
  if (!json_is_array(array)) return error_set(e, ERR_BAD_VALUE, "a message wants a JSON array");
  struct term_writer w = TERM_WRITER_INIT;
  int rc = json_to_value(nodes, array, policy, &w, e);
  struct term *t = NULL;
  if (rc == 0) {
    /* The array is written as one LIST; without its head, it is the tuple. */
    struct term_writer tuple = {.data = w.data + 5, .len = w.len - 5};
    t = term_from_writer(&tuple, (uint32_t)json_array_size(array));
    if (!t) rc = error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
  }
  term_writer_finish(&w);
  if (t) *out = t;
  return rc;
}

int json_to_bytes(const json_t *v, struct buf *out) {
  if (json_is_string(v)) {
    buf_append(out, json_string_value(v), json_string_length(v));
    return 0;
  }
  if (json_object_size(v) != 1) return ERR_BAD_VALUE;
  const json_t *text = json_object_get(v, "$bytes");
  bool good = json_is_string(text) && text_unbase64(out, json_string_value(text), json_string_length(text));
  return good ? 0 : ERR_BAD_VALUE;
}
