/* term: a message between processes of one node: a tuple of values, immutable, reference-counted, compact.
 *
 * Layout: `count` values one after the other, each a tag byte and then:
 *   NIL FALSE TRUE   nothing
 *   INT              zigzag varint, 64 bits       FLOAT  8 bytes, host order
 *   STR              varint length, bytes
 *   LIST             u32 count, that many values  MAP    u32 count, that many (STR, value) pairs
 *   TABLE            u32 count, (value, value) pairs: a table whose keys are not all strings nor 1..n
 *   PID REF          8 bytes, an npid
 *   FN               u32 length, bytes: a closure as the vm writes it; only the vm reads it
 * u32 are in host order and may be unaligned.  Values nest at most TERM_DEPTH_MAX deep, and a term has at
 * most TERM_SIZE_MAX bytes.  Terms come from the writer below only, so the reader does not check them. */
#ifndef CORE_TERM_H
#define CORE_TERM_H

#include "base/err.h"
#include "core/npid.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum term_tag {
  TERM_NIL,
  TERM_FALSE,
  TERM_TRUE,
  TERM_INT,
  TERM_FLOAT,
  TERM_STR,
  TERM_LIST,
  TERM_MAP,
  TERM_TABLE,
  TERM_PID,
  TERM_REF,
  TERM_FN,
  TERM_END, /* what term_next returns at the end of the term */
};

enum { TERM_DEPTH_MAX = 600 }; /* as JSON a TABLE nests three deep, and jansson reads no more than 2048 */
#define TERM_SIZE_MAX ((size_t)128 << 20)

struct term {
  atomic_uint refs;
  uint32_t count; /* values at the top */
  uint32_t size;  /* bytes */
  uint8_t bytes[];
};

/* Any thread: terms are immutable and their counter is atomic.  term_unref accepts NULL. */
struct term *term_ref(struct term *t);
void term_unref(struct term *t);

/* The writer: appends values to a buffer that grows.  After the first failure, which stays in `failed`, later
 * calls do nothing.  One thread. */
struct term_writer {
  uint8_t *data; /* behind room for the head of a term, for term_take */
  size_t len, cap;
  int failed; /* 0, ERR_NOMEM, ERR_TOO_LARGE */
};

#define TERM_WRITER_INIT ((struct term_writer){0})

void term_writer_finish(struct term_writer *w);
static inline void term_writer_clear(struct term_writer *w) {
  w->len = 0, w->failed = 0;
}

void term_put_nil(struct term_writer *w);
void term_put_bool(struct term_writer *w, bool v);
void term_put_int(struct term_writer *w, int64_t v);
void term_put_float(struct term_writer *w, double v);
void term_put_str(struct term_writer *w, const void *bytes, size_t n);
void term_put_text(struct term_writer *w, const char *text); /* NUL-terminated */
void term_put_pid(struct term_writer *w, npid p); /* a PID, or a REF when npid_is_ref; NIL for NPID_NONE */
void term_put_fn(struct term_writer *w, const void *bytes, size_t n);

/* Begins a STR or FN of n bytes, which the caller then appends with term_put_raw. */
void term_open_bytes(struct term_writer *w, enum term_tag tag, size_t n);

/* Makes room for exactly n bytes in all, so that no later call that stays within them moves the values.
 * False when the writer has failed. */
bool term_reserve(struct term_writer *w, size_t n);

/* Begins a LIST, MAP or TABLE; returns the position of its count, for term_set_count when the count is known.
 */
size_t term_open(struct term_writer *w, enum term_tag tag);
void term_set_count(struct term_writer *w, size_t at, uint32_t count);

/* Turns the MAP whose count is at this position into a TABLE: the two differ in their tags alone. */
void term_set_table(struct term_writer *w, size_t at);

/* Replaces the byte that is at a position of the writer. */
void term_set_byte(struct term_writer *w, size_t at, uint8_t byte);

/* For many numbers in a row: term_room makes room for n more bytes and returns where they go, or NULL when
 * the writer has failed; term_write_int and term_write_float write a number there, at most TERM_NUMBER_MAX
 * bytes, term_write_head the TERM_HEAD bytes with which a LIST, MAP or TABLE begins, and they return where
 * that ends; term_close_room takes the end of the last one.  Without it, nothing was appended. */
enum { TERM_NUMBER_MAX = 11, TERM_HEAD = 5 };
uint8_t *term_room(struct term_writer *w, size_t n);
static inline uint8_t *term_write_head(uint8_t *at, enum term_tag tag, uint32_t count) {
  *at = (uint8_t)tag;
  memcpy(at + 1, &count, sizeof count);
  return at + TERM_HEAD;
}
static inline uint8_t *term_write_int(uint8_t *at, int64_t v) {
  uint64_t rest = (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
  *at++ = TERM_INT;
  for (; rest >= 0x80; rest >>= 7) *at++ = (uint8_t)(rest | 0x80);
  *at++ = (uint8_t)rest;
  return at;
}
static inline uint8_t *term_write_float(uint8_t *at, double v) {
  *at = TERM_FLOAT;
  memcpy(at + 1, &v, sizeof v);
  return at + 1 + sizeof v;
}
static inline void term_close_room(struct term_writer *w, const uint8_t *end) {
  w->len = (size_t)(end - w->data);
}

/* Appends values that are already encoded. */
void term_put_raw(struct term_writer *w, const void *bytes, size_t n);

/* A term of the values written, `count` of them at the top.  The writer keeps its memory and its values. NULL
 * when the writer has failed or memory ran out. */
struct term *term_from_writer(const struct term_writer *w, uint32_t count);

/* As term_from_writer, but empties the writer.  A term of more than TERM_TAKEN bytes takes over the memory of
 * the writer, so that there is never a second copy of it. */
enum { TERM_TAKEN = 256 << 10 };
struct term *term_take(struct term_writer *w, uint32_t count);

/* As term_take, but takes over the memory whatever its size is: for a writer that has about as much as the
 * term (term_reserve). */
struct term *term_take_all(struct term_writer *w, uint32_t count);

/* The reader: a position in encoded values. */
struct term_reader {
  const uint8_t *at, *end;
};
static inline struct term_reader term_read(const struct term *t) {
  return (struct term_reader){t ? t->bytes : NULL, t ? t->bytes + t->size : NULL};
}

/* One value.  STR and FN point into the term.  LIST, MAP and TABLE have only their count here: the reader is
 * then at their first element. */
struct term_value {
  enum term_tag tag;
  union {
    int64_t i;
    double d;
    npid pid;
    uint32_t count;
    struct {
      const char *s; /* not NUL-terminated */
      uint32_t len;
    };
  };
};

struct term_value term_next(struct term_reader *r);

/* Reads an INT if the reader is at one; else returns false. */
static inline bool term_next_int(struct term_reader *r, int64_t *out) {
  if (r->at == r->end || *r->at != TERM_INT) return false;
  const uint8_t *at = r->at + 1;
  uint64_t raw = *at++;
  if (raw >= 0x80) { /* each byte takes off the bit that told of it */
    raw += ((uint64_t)*at++ - 1) << 7;
    if (at[-1] >= 0x80) raw += ((uint64_t)*at++ - 1) << 14;
    for (int shift = 21; at[-1] >= 0x80; shift += 7) raw += ((uint64_t)*at++ - 1) << shift;
  }
  r->at = at;
  *out = (int64_t)(raw >> 1 ^ (raw & 1 ? UINT64_MAX : 0));
  return true;
}

/* Skips one value and everything inside it. */
void term_skip(struct term_reader *r);

/* Builds a small tuple; each letter of the format is a value: s (const char *), b (int: a boolean), i
 * (int64_t), p (npid), n (no argument: NIL), l (struct term *: its values as one LIST), t (struct term *: its
 * values one by one). NULL when memory ran out. */
struct term *term_build(const char *format, ...);

/* Reads the next value, which must be of this kind.  False when it is of another kind; the reader has then
 * skipped it. */
bool term_get_str(struct term_reader *r, const char **s, size_t *len);
bool term_get_pid(struct term_reader *r, npid *out);
bool term_get_int(struct term_reader *r, int64_t *out);

/* Is the first value this string? */
bool term_is_word(const struct term *t, const char *word);

/* Sets *found to the value of a key in the MAP that r is at.  False when r is not at a MAP or the key is
 * missing. */
bool term_map_find(struct term_reader r, const char *key, struct term_reader *found);

#endif
