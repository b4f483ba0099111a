/* Reads JSON text into a term writer, without a tree.  Reals and strings with \u escapes are rare in messages
 * and have many rules: jansson reads them.  `forms` lists all objects whose `$` key has a meaning.  The
 * recursion is bounded by TERM_DEPTH_MAX, and in what peers send by AROUND more. */
#include "wire/json.h"

#include "base/text.h"
#include "wire/base64.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The path of a wrong value is made on the way out: each level puts its step in front.  So a good value costs
 * nothing for it. */
struct decoder {
  struct nodetab *nodes;
  enum json_policy policy;
  struct term_writer *w;
  const char *start, *at, *end;
  struct buf scratch; /* an unescaped string, or the bytes of base64 */
  int depth;
  char path[160];
  char wrong[240];
};

struct text { /* points into the source or into scratch; valid until the next string is read */
  const char *s;
  size_t n;
};

/* --- errors --- */

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

static int syntax(struct decoder *d, const char *what) {
  wrong(d, ERR_BAD_JSON, "not JSON: byte %zu: %s", (size_t)(d->at - d->start) + 1, what);
  return ERR_BAD_JSON;
}

/* --- tokens --- */

static const char *behind_space(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
  return at;
}

static void skip_space(struct decoder *d) {
  d->at = behind_space(d->at, d->end);
}

/* Skips spaces and returns the next character, or 0 at the end. */
static char peek(struct decoder *d) {
  skip_space(d);
  return d->at < d->end ? *d->at : 0;
}

static bool eat(struct decoder *d, char c) {
  if (peek(d) != c) return false;
  d->at++;
  return true;
}

static int word(struct decoder *d, const char *w) {
  size_t n = strlen(w);
  if ((size_t)(d->end - d->at) < n || memcmp(d->at, w, n) != 0) return syntax(d, "no such word");
  d->at += n;
  return 0;
}

/* The value that jansson reads between `from` and d->at; NULL when that is no JSON. */
static json_t *ask_jansson(struct decoder *d, const char *from) {
  return json_loadb(from, (size_t)(d->at - from), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

static char unescaped(char c) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  const char *at = c ? strchr(from, c) : NULL;
  return at ? to[at - from] : 0;
}

/* Reads a string that has escapes.  Its opening quote is at `from`, and d->at is at the first byte that is
 * not plain. */
static int escaped(struct decoder *d, const char *from, struct text *out) {
  buf_clear(&d->scratch);
  bool simple = true;
  const char *plain = from + 1;
  for (; d->at < d->end && *d->at != '"'; d->at++) {
    if ((unsigned char)*d->at < ' ') return syntax(d, "a control character in a string");
    if (*d->at != '\\') continue;
    buf_append(&d->scratch, plain, (size_t)(d->at - plain));
    if (++d->at == d->end) break;
    char c = unescaped(*d->at);
    simple = simple && c;
    buf_putc(&d->scratch, c);
    plain = d->at + 1;
  }
  if (d->at == d->end) return syntax(d, "a string does not end");
  buf_append(&d->scratch, plain, (size_t)(d->at++ - plain));
  if (!simple) {
    json_t *v = ask_jansson(d, from);
    if (!v) return d->at = from, syntax(d, "a bad escape in a string");
    buf_clear(&d->scratch);
    buf_append(&d->scratch, json_string_value(v), json_string_length(v));
    json_decref(v);
  }
  if (!buf_ok(&d->scratch)) return wrong(d, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM)), ERR_NOMEM;
  *out = (struct text){d->scratch.data, d->scratch.len};
  return 0;
}

/* Reads a string; d->at is at its opening quote. */
static int string(struct decoder *d, struct text *out) {
  const char *from = d->at++;
  bool ascii = true;
  int rc = 0;
  for (;;) {
    d->at += text_plain(d->at, (size_t)(d->end - d->at));
    if (d->at == d->end || (unsigned char)*d->at < 0x80) break;
    ascii = false;
    d->at++;
  }
  if (d->at == d->end) return syntax(d, "a string does not end");
  if (*d->at == '"') {
    *out = (struct text){from + 1, (size_t)(d->at++ - from - 1)};
  } else {
    rc = escaped(d, from, out);
    ascii = false;
  }
  if (rc == 0 && !ascii && !text_utf8(out->s, out->n))
    return d->at = from, syntax(d, "a string that is no UTF-8");
  return rc;
}

static int number(struct decoder *d) {
  const char *from = d->at;
  while (d->at < d->end && *d->at && strchr("+-.0123456789Ee", *d->at)) d->at++;
  size_t n = (size_t)(d->at - from), sign = *from == '-';
  bool plain = n > sign && n - sign < 19 && (from[sign] != '0' || n - sign == 1);
  int64_t v = 0;
  for (size_t i = sign; i < n && plain; i++) {
    plain = from[i] >= '0' && from[i] <= '9';
    v = v * 10 + (from[i] - '0');
  }
  if (plain) return term_put_int(d->w, sign ? -v : v), 0;
  json_t *any = ask_jansson(d, from);
  bool good = json_is_number(any);
  if (json_is_integer(any))
    term_put_int(d->w, json_integer_value(any));
  else if (good)
    term_put_float(d->w, json_real_value(any));
  json_decref(any);
  return good ? 0 : (d->at = from, syntax(d, "a number that is malformed or too large"));
}

/* --- $ forms --- */

static int value(struct decoder *d);

/* Reads the string that a form must have; false when the value is no string, or a malformed one (*rc). */
static bool form_text(struct decoder *d, struct text *out, int *rc) {
  return peek(d) == '"' && !(*rc = string(d, out));
}

static int base64(struct decoder *d, const char *form,
                  void (*put)(struct term_writer *, const void *, size_t)) {
  struct text text;
  struct buf bytes = BUF_INIT;
  int rc = 0;
  if (form_text(d, &text, &rc) && base64_decode(&bytes, text.s, text.n))
    put(d->w, bytes.data, bytes.len);
  else if (!rc)
    rc = wrong(d, ERR_BAD_VALUE, "\"%s\": expected base64", form);
  buf_finish(&bytes);
  return rc;
}

static int read_bytes(struct decoder *d) {
  return base64(d, "$bytes", term_put_str);
}

static int read_fn(struct decoder *d) {
  if (d->policy == JSON_WITH_CODE) return base64(d, "$fn", term_put_fn);
  return wrong(d, ERR_BAD_VALUE, "\"$fn\": compiled code is not taken from clients");
}

static int read_float(struct decoder *d) {
  const struct {
    const char *text;
    double value;
  } floats[] = {{"nan", NAN}, {"inf", INFINITY}, {"-inf", -INFINITY}};
  struct text text;
  int rc = 0;
  if (form_text(d, &text, &rc))
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
      if (strlen(floats[i].text) == text.n && memcmp(floats[i].text, text.s, text.n) == 0)
        return term_put_float(d->w, floats[i].value), 0;
  return rc ? rc : wrong(d, ERR_BAD_VALUE, "\"$float\": expected \"nan\", \"inf\" or \"-inf\"");
}

static int identity(struct decoder *d, const char *form, npid *out) {
  struct error e = {0};
  struct text text;
  char copy[NPID_TEXT_SIZE];
  int rc = 0;
  if (!form_text(d, &text, &rc) || text.n >= sizeof copy || memchr(text.s, 0, text.n))
    return rc ? rc : wrong(d, ERR_BAD_VALUE, "\"%s\": expected a %s", form, form + 1);
  memcpy(copy, text.s, text.n);
  copy[text.n] = 0;
  rc = (d->policy == JSON_WITH_CODE ? npid_parse_foreign : npid_parse)(d->nodes, copy, out, &e);
  if (rc == ERR_BAD_PID) return wrong(d, ERR_BAD_VALUE, "\"%s\": expected a %s", form, form + 1);
  return rc ? wrong(d, rc, "%.200s", error_text(&e)) : 0;
}

static int read_pid(struct decoder *d) {
  npid p = NPID_NONE;
  int rc = identity(d, "$pid", &p);
  if (rc == 0) term_put_pid(d->w, p);
  return rc;
}

static int read_ref(struct decoder *d) {
  npid p = NPID_NONE;
  int rc = identity(d, "$ref", &p);
  if (rc == 0) term_put_pid(d->w, npid_as_ref(p));
  return rc;
}

/* Reads [key, value]; *tag gets the tag of the key. */
static int read_pair(struct decoder *d, size_t i, enum term_tag *tag) {
  static const char want[] = "\"$map\": expected an array of [key, value]";
  if (!eat(d, '[') || peek(d) == ']') return step(d, wrong(d, ERR_BAD_VALUE, want), "[%zu]", i);
  size_t key = d->w->len;
  int rc = value(d);
  if (rc) return step(d, rc, "[%zu][0]", i);
  *tag = d->w->data[key];
  if (*tag == TERM_NIL || !eat(d, ',')) return step(d, wrong(d, ERR_BAD_VALUE, want), "[%zu]", i);
  if ((rc = value(d))) return step(d, rc, "[%zu][1]", i);
  return eat(d, ']') ? 0 : step(d, wrong(d, ERR_BAD_VALUE, want), "[%zu]", i);
}

/* Reads the pairs as a MAP when all keys are strings, else as a TABLE.  json_write.c (put_map) writes a MAP
 * in this form when one of its keys cannot be a key of a JSON object. */
static int read_pairs(struct decoder *d) {
  if (!eat(d, '[')) return wrong(d, ERR_BAD_VALUE, "\"$map\": expected an array of [key, value]");
  size_t at = term_open(d->w, TERM_TABLE), n = 0;
  bool strings = true;
  while (!eat(d, ']')) {
    enum term_tag tag = TERM_NIL;
    if (n && !eat(d, ',')) return syntax(d, "expected , or ]");
    int rc = read_pair(d, n++, &tag);
    if (rc) return rc;
    strings = strings && tag == TERM_STR;
  }
  if (d->w->failed) return 0;
  term_set_count(d->w, at, (uint32_t)n);
  if (strings && n) d->w->data[at - 1] = TERM_MAP;
  return 0;
}

static const struct form {
  const char *key;
  int (*read)(struct decoder *d);
} forms[] = {{"$pid", read_pid},     {"$ref", read_ref}, {"$bytes", read_bytes},
             {"$float", read_float}, {"$fn", read_fn},   {"$map", read_pairs}};

static const struct form *find_form(struct text key) {
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    if (strlen(forms[i].key) == key.n && memcmp(forms[i].key, key.s, key.n) == 0) return &forms[i];
  return NULL;
}

/* --- values --- */

static int no_meaning(struct decoder *d, const char *key, size_t n) {
  return wrong(d, ERR_BAD_VALUE, "\"%.*s\" means nothing here: a key that starts with $ is written $$",
               (int)(n < 80 ? n : 80), key);
}

/* Reads an object whose first key is a form's; it must have no other key. */
static int read_form(struct decoder *d, struct text key) {
  const struct form *form = find_form(key);
  if (!form) return no_meaning(d, key.s, key.n);
  if (!eat(d, ':')) return syntax(d, "expected :");
  int rc = form->read(d);
  if (rc || eat(d, '}')) return rc;
  return peek(d) == ',' ? no_meaning(d, form->key, strlen(form->key)) : syntax(d, "expected }");
}

static int member(struct decoder *d, struct text key) {
  if (key.n && key.s[0] == '$' && (key.n < 2 || key.s[1] != '$')) return no_meaning(d, key.s, key.n);
  bool more = key.n && key.s[0] == '$';
  char name[48]; /* a copy for the path: `key` is not valid after the next string */
  snprintf(name, sizeof name, "%.*s", (int)(key.n < 40 ? key.n : 40), key.s);
  term_put_str(d->w, key.s + more, key.n - more);
  if (!eat(d, ':')) return syntax(d, "expected :");
  int rc = value(d);
  return rc ? step(d, rc, ".%s", name) : 0;
}

static int object(struct decoder *d) {
  size_t at = 0;
  uint32_t n = 0;
  for (d->at++; !eat(d, '}'); n++) {
    struct text key;
    if (n && !eat(d, ',')) return syntax(d, "expected , or }");
    if (peek(d) != '"') return syntax(d, "expected a key");
    int rc = string(d, &key);
    if (rc) return rc;
    if (n == 0 && key.n > 1 && key.s[0] == '$' && key.s[1] != '$') return read_form(d, key);
    if (n == 0) at = term_open(d->w, TERM_MAP);
    if ((rc = member(d, key))) return rc;
  }
  if (n == 0) at = term_open(d->w, TERM_MAP);
  term_set_count(d->w, at, n);
  return 0;
}

/* Reads the elements and the closing bracket; d->at is behind the opening bracket. */
static int elements(struct decoder *d, uint32_t *count) {
  uint32_t n = 0;
  for (; !eat(d, ']'); n++) {
    if (n && !eat(d, ',')) return syntax(d, "expected , or ]");
    int rc = value(d);
    if (rc) return step(d, rc, "[%u]", n);
  }
  *count = n;
  return 0;
}

static int array(struct decoder *d) {
  size_t at = term_open(d->w, TERM_LIST);
  uint32_t n = 0;
  d->at++;
  int rc = elements(d, &n);
  if (rc == 0) term_set_count(d->w, at, n);
  return rc;
}

/* A peer's values may have the full depth where they arrive: around them are the array of the frame, the map
 * and the list of a call, and within them the object of a form. */
enum { AROUND = 8 };

static int container(struct decoder *d) {
  if (d->depth >= TERM_DEPTH_MAX + (d->policy == JSON_WITH_CODE ? AROUND : 0))
    return wrong(d, ERR_TOO_LARGE, "values nest more than %d deep", TERM_DEPTH_MAX);
  d->depth++;
  int rc = *d->at == '[' ? array(d) : object(d);
  d->depth--;
  return rc;
}

static int put_string(struct decoder *d) {
  struct text text;
  int rc = string(d, &text);
  if (rc == 0) term_put_str(d->w, text.s, text.n);
  return rc;
}

static int scalar(struct decoder *d, char first) {
  switch (first) {
  case '"': return put_string(d);
  case 'n': term_put_nil(d->w); return word(d, "null");
  case 't': term_put_bool(d->w, true); return word(d, "true");
  case 'f': term_put_bool(d->w, false); return word(d, "false");
  case 0: return syntax(d, "it ends too early");
  case '-': return number(d);
  default: return first >= '0' && first <= '9' ? number(d) : syntax(d, "expected a value");
  }
}

static int value(struct decoder *d) {
  char first = peek(d);
  int rc = first == '[' || first == '{' ? container(d) : scalar(d, first);
  if (rc == 0 && d->w->failed) rc = wrong(d, d->w->failed, "%s", err_sentence(d->w->failed));
  return rc;
}

/* --- */

static int finish(struct decoder *d, int rc, struct json_source *s, struct error *e) {
  if (rc == 0) s->at = d->at;
  buf_finish(&d->scratch);
  return rc ? error_set(e, rc, "%s%s%s", d->path, d->path[0] ? ": " : "", d->wrong) : 0;
}

static struct decoder decoder_of(const struct json_source *s, struct nodetab *nodes, enum json_policy policy,
                                 struct term_writer *w) {
  return (struct decoder){
      .nodes = nodes, .policy = policy, .w = w, .start = s->start, .at = s->at, .end = s->end};
}

int json_get_value(struct json_source *s, struct nodetab *nodes, enum json_policy policy,
                   struct term_writer *w, struct error *e) {
  struct decoder d = decoder_of(s, nodes, policy, w);
  return finish(&d, value(&d), s, e);
}

int json_get_values(struct json_source *s, struct nodetab *nodes, enum json_policy policy,
                    struct term_writer *w, uint32_t *count, struct error *e) {
  struct decoder d = decoder_of(s, nodes, policy, w);
  d.depth = 1;
  int rc = eat(&d, '[') ? elements(&d, count) : wrong(&d, ERR_BAD_VALUE, "expected a message, a JSON array");
  if (rc == 0 && w->failed) rc = wrong(&d, w->failed, "%s", err_sentence(w->failed));
  return finish(&d, rc, s, e);
}

/* These three do not make a decoder, which is large, as long as they can do without. */

bool json_eat(struct json_source *s, char c) {
  s->at = behind_space(s->at, s->end);
  if (s->at == s->end || *s->at != c) return false;
  s->at++;
  return true;
}

bool json_get_null(struct json_source *s) {
  const char *at = behind_space(s->at, s->end);
  if (s->end - at < 4 || memcmp(at, "null", 4) != 0) return false;
  s->at = at + 4;
  return true;
}

/* Reads a word without escapes and without bytes above 0x7f. */
static bool get_plain_word(struct json_source *s, char *out, size_t size) {
  const char *at = behind_space(s->at, s->end);
  if (at == s->end || *at++ != '"') return false;
  size_t n = text_plain(at, (size_t)(s->end - at));
  if (n >= size || at + n == s->end || at[n] != '"') return false;
  memcpy(out, at, n);
  out[n] = 0;
  s->at = at + n + 1;
  return true;
}

bool json_get_word(struct json_source *s, char *out, size_t size) {
  if (get_plain_word(s, out, size)) return true;
  struct decoder d = decoder_of(s, NULL, JSON_DATA, NULL);
  struct text text;
  bool good = peek(&d) == '"' && !string(&d, &text) && text.n < size && !memchr(text.s, 0, text.n);
  if (good) {
    memcpy(out, text.s, text.n);
    out[text.n] = 0;
    s->at = d.at;
  }
  buf_finish(&d.scratch);
  return good;
}
