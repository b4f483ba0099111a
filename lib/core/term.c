/* Invariant: the bytes of a term are complete values, `count` of them at the top; no length or count in them
 * reaches beyond its end.  The writer keeps len <= cap <= TERM_SIZE_MAX; its block begins HEAD bytes before
 * data. */
#include "core/term.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

enum { WRITER_FIRST = 256, VARINT_MAX = TERM_NUMBER_MAX - 1, HEAD = offsetof(struct term, bytes) };

/* --- life --- */

struct term *term_ref(struct term *t) {
  atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
  return t;
}

void term_unref(struct term *t) {
  if (!t) return;
  /* The only owner needs no locked instruction; most messages have one owner when they are received. */
  if (atomic_load_explicit(&t->refs, memory_order_acquire) != 1 &&
      atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
    return;
  free(t);
}

static struct term *set_head(struct term *t, const struct term_writer *w, uint32_t count) {
  atomic_init(&t->refs, 1);
  t->count = count;
  t->size = (uint32_t)w->len;
  return t;
}

struct term *term_from_writer(const struct term_writer *w, uint32_t count) {
  if (w->failed) return NULL;
  struct term *t = malloc(sizeof *t + w->len);
  if (!t) return NULL;
  if (w->len) memcpy(t->bytes, w->data, w->len);
  return set_head(t, w, count);
}

struct term *term_take(struct term_writer *w, uint32_t count) {
  if (w->failed || w->len > TERM_TAKEN) return term_take_all(w, count);
  struct term *copy = term_from_writer(w, count);
  term_writer_clear(w);
  return copy;
}

/* A block that cannot be made smaller stays as it is. */
struct term *term_take_all(struct term_writer *w, uint32_t count) {
  if (w->failed || !w->len) return term_from_writer(w, count);
  uint8_t *block = w->data - HEAD;
  uint8_t *smaller = w->cap > w->len ? realloc(block, HEAD + w->len) : NULL;
  struct term *t = set_head((struct term *)(void *)(smaller ? smaller : block), w, count);
  *w = TERM_WRITER_INIT;
  return t;
}

/* --- writing --- */

void term_writer_finish(struct term_writer *w) {
  if (w->data) free(w->data - HEAD);
  *w = TERM_WRITER_INIT;
}

static bool set_cap(struct term_writer *w, size_t cap) {
  uint8_t *block = realloc(w->data ? w->data - HEAD : NULL, HEAD + cap);
  if (!block) return w->failed = ERR_NOMEM, false;
  w->data = &block[HEAD];
  w->cap = cap;
  return true;
}

static uint8_t *writer_grow(struct term_writer *w, size_t n) {
  if (w->failed) return NULL;
  if (n > TERM_SIZE_MAX - w->len) return w->failed = ERR_TOO_LARGE, NULL;
  size_t cap = w->cap ? w->cap : WRITER_FIRST;
  while (cap - w->len < n) cap *= 2;
  if (!set_cap(w, cap < TERM_SIZE_MAX ? cap : TERM_SIZE_MAX)) return NULL;
  return w->data + w->len;
}

bool term_reserve(struct term_writer *w, size_t n) {
  if (w->failed || n <= w->cap) return !w->failed;
  if (n > TERM_SIZE_MAX) return w->failed = ERR_TOO_LARGE, false;
  return set_cap(w, n);
}

/* Room for n more bytes at data + len, or NULL once the writer has failed. */
static inline uint8_t *reserve(struct term_writer *w, size_t n) {
  if (!w->failed && n <= w->cap - w->len && w->data) return w->data + w->len;
  return writer_grow(w, n);
}

static uint8_t *varint_put(uint8_t *at, uint64_t v) {
  for (; v >= 0x80; v >>= 7) *at++ = (uint8_t)(v | 0x80);
  *at++ = (uint8_t)v;
  return at;
}

static void put_tag(struct term_writer *w, enum term_tag tag) {
  uint8_t *at = reserve(w, 1);
  if (!at) return;
  *at = (uint8_t)tag;
  w->len++;
}

static void put_word(struct term_writer *w, enum term_tag tag, const void *word) {
  uint8_t *at = reserve(w, 9);
  if (!at) return;
  *at = (uint8_t)tag;
  memcpy(at + 1, word, 8);
  w->len += 9;
}

void term_put_nil(struct term_writer *w) {
  put_tag(w, TERM_NIL);
}

void term_put_bool(struct term_writer *w, bool v) {
  put_tag(w, v ? TERM_TRUE : TERM_FALSE);
}

void term_put_int(struct term_writer *w, int64_t v) {
  uint8_t *at = reserve(w, TERM_NUMBER_MAX);
  if (at) term_close_room(w, term_write_int(at, v));
}

uint8_t *term_room(struct term_writer *w, size_t n) {
  return reserve(w, n);
}

void term_put_float(struct term_writer *w, double v) {
  put_word(w, TERM_FLOAT, &v);
}

void term_put_str(struct term_writer *w, const void *bytes, size_t n) {
  if (n > TERM_SIZE_MAX) {
    if (!w->failed) w->failed = ERR_TOO_LARGE;
    return;
  }
  uint8_t *start = reserve(w, 1 + VARINT_MAX + n);
  if (!start) return;
  *start = TERM_STR;
  uint8_t *at = varint_put(start + 1, n);
  if (n) memcpy(at, bytes, n);
  w->len += (size_t)(at - start) + n;
}

void term_put_text(struct term_writer *w, const char *text) {
  term_put_str(w, text, strlen(text));
}

void term_put_pid(struct term_writer *w, npid p) {
  if (p == NPID_NONE)
    term_put_nil(w);
  else
    put_word(w, npid_is_ref(p) ? TERM_REF : TERM_PID, &p);
}

void term_put_fn(struct term_writer *w, const void *bytes, size_t n) {
  if (n > TERM_SIZE_MAX) {
    if (!w->failed) w->failed = ERR_TOO_LARGE;
    return;
  }
  uint8_t *at = reserve(w, 5 + n);
  if (!at) return;
  uint32_t len = (uint32_t)n;
  *at = TERM_FN;
  memcpy(at + 1, &len, 4);
  if (n) memcpy(at + 5, bytes, n);
  w->len += 5 + n;
}

void term_open_bytes(struct term_writer *w, enum term_tag tag, size_t n) {
  uint32_t len = (uint32_t)n;
  if (n > TERM_SIZE_MAX && !w->failed) w->failed = ERR_TOO_LARGE;
  uint8_t *start = reserve(w, 1 + VARINT_MAX), *at = start;
  if (!start) return;
  *at++ = (uint8_t)tag;
  if (tag == TERM_STR)
    at = varint_put(at, n);
  else
    memcpy(at, &len, 4), at += 4;
  w->len += (size_t)(at - start);
}

size_t term_open(struct term_writer *w, enum term_tag tag) {
  uint8_t *at = reserve(w, 5);
  if (!at) return 0;
  *at = (uint8_t)tag;
  memset(at + 1, 0, 4);
  w->len += 5;
  return w->len - 4;
}

void term_set_count(struct term_writer *w, size_t at, uint32_t count) {
  if (!w->failed) memcpy(w->data + at, &count, 4);
}

void term_set_byte(struct term_writer *w, size_t at, uint8_t byte) {
  if (!w->failed) w->data[at] = byte;
}

void term_set_table(struct term_writer *w, size_t at) {
  term_set_byte(w, at - 1, TERM_TABLE);
}

void term_put_raw(struct term_writer *w, const void *bytes, size_t n) {
  uint8_t *at = reserve(w, n);
  if (!at) return;
  if (n) memcpy(at, bytes, n);
  w->len += n;
}

static void build_list(struct term_writer *w, const struct term *t) {
  size_t at = term_open(w, TERM_LIST);
  if (!t) return;
  term_put_raw(w, t->bytes, t->size);
  term_set_count(w, at, t->count);
}

/* Writes the value of a format letter, or with 't' the values, and returns how many. */
static uint32_t build_one(struct term_writer *w, char letter, va_list *args) {
  const struct term *t;
  switch (letter) {
  case 's': term_put_text(w, va_arg(*args, const char *)); return 1;
  case 'b': term_put_bool(w, va_arg(*args, int)); return 1;
  case 'i': term_put_int(w, va_arg(*args, int64_t)); return 1;
  case 'p': term_put_pid(w, va_arg(*args, npid)); return 1;
  case 'l': build_list(w, va_arg(*args, const struct term *)); return 1;
  case 't':
    t = va_arg(*args, const struct term *);
    if (!t) return 0;
    term_put_raw(w, t->bytes, t->size);
    return t->count;
  default: term_put_nil(w); return 1;
  }
}

struct term *term_build(const char *format, ...) {
  struct term_writer w = TERM_WRITER_INIT;
  uint32_t count = 0;
  va_list args;
  va_start(args, format);
  for (; *format; format++) count += build_one(&w, *format, &args);
  va_end(args);
  struct term *t = term_from_writer(&w, count);
  term_writer_finish(&w);
  return t;
}

/* --- reading --- */

static uint64_t varint_get(const uint8_t **at) {
  uint64_t v = 0;
  for (int shift = 0;; shift += 7) {
    uint8_t byte = *(*at)++;
    v |= (uint64_t)(byte & 0x7F) << shift;
    if (byte < 0x80) return v;
  }
}

static uint32_t u32_get(const uint8_t **at) {
  uint32_t v;
  memcpy(&v, *at, 4);
  *at += 4;
  return v;
}

struct term_value term_next(struct term_reader *r) {
  if (r->at == r->end) return (struct term_value){.tag = TERM_END};
  struct term_value v = {.tag = *r->at++};
  switch (v.tag) {
  case TERM_INT: r->at--, term_next_int(r, &v.i); break;
  case TERM_FLOAT: memcpy(&v.d, r->at, 8), r->at += 8; break;
  case TERM_PID:
  case TERM_REF: memcpy(&v.pid, r->at, 8), r->at += 8; break;
  case TERM_LIST:
  case TERM_MAP:
  case TERM_TABLE: v.count = u32_get(&r->at); break;
  case TERM_STR:
  case TERM_FN:
    v.len = v.tag == TERM_STR ? (uint32_t)varint_get(&r->at) : u32_get(&r->at);
    v.s = (const char *)r->at;
    r->at += v.len;
    break;
  case TERM_NIL:
  case TERM_FALSE:
  case TERM_TRUE:
  case TERM_END: break;
  }
  return v;
}

void term_skip(struct term_reader *r) {
  for (uint64_t left = 1; left; left--) { /* a counter instead of recursion, so that depth needs no stack */
    struct term_value v = term_next(r);
    if (v.tag == TERM_LIST)
      left += v.count;
    else if (v.tag == TERM_MAP || v.tag == TERM_TABLE)
      left += (uint64_t)v.count * 2;
    else if (v.tag == TERM_END)
      return;
  }
}

/* Reads a value of this kind, or skips a value of another kind completely. */
static bool get_kind(struct term_reader *r, enum term_tag tag, struct term_value *out) {
  if (r->at == r->end || *r->at != tag) return term_skip(r), false;
  *out = term_next(r);
  return true;
}

bool term_get_str(struct term_reader *r, const char **s, size_t *len) {
  struct term_value v;
  if (!get_kind(r, TERM_STR, &v)) return false;
  *s = v.s;
  *len = v.len;
  return true;
}

bool term_is_word(const struct term *t, const char *word) {
  struct term_reader r = term_read(t);
  const char *s;
  size_t n;
  return term_get_str(&r, &s, &n) && n == strlen(word) && memcmp(s, word, n) == 0;
}

bool term_get_pid(struct term_reader *r, npid *out) {
  struct term_value v;
  if (!get_kind(r, TERM_PID, &v)) return false;
  *out = v.pid;
  return true;
}

bool term_get_int(struct term_reader *r, int64_t *out) {
  struct term_value v;
  if (!get_kind(r, TERM_INT, &v)) return false;
  *out = v.i;
  return true;
}

bool term_map_find(struct term_reader r, const char *key, struct term_reader *found) {
  struct term_value map = term_next(&r);
  if (map.tag != TERM_MAP) return false;
  size_t n = strlen(key);
  for (uint32_t i = 0; i < map.count; i++, term_skip(&r)) {
    struct term_value k = term_next(&r);
    if (k.tag == TERM_STR && k.len == n && memcmp(k.s, key, n) == 0) return *found = r, true;
  }
  return false;
}
