/* buf: a byte buffer that grows and remembers its first failure.
 *
 * The caller need not check each append: when memory runs out, the buffer is marked `failed`, later appends
 * do nothing, and buf_ok tells at the end whether all was appended.  One owner, no locking. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
  char *data; /* NULL before the first append; then len bytes and a NUL, which len does not count */
  size_t len;
  size_t cap;     /* bytes allocated from data on */
  size_t skipped; /* bytes allocated before data: what buf_consume dropped and has not yet reclaimed */
  bool failed;
};

#define BUF_INIT ((struct buf){0})

/* Frees the memory; the buffer is then empty and usable. */
void buf_finish(struct buf *b);

/* Makes room for n more bytes.  False when the buffer has failed, now or before. */
bool buf_reserve(struct buf *b, size_t n);

void buf_append(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *text);
void buf_putc(struct buf *b, char c);
/* The number with at least so many digits, as "%0*lld" would; some ten times as fast as printf. */
void buf_number(struct buf *b, int64_t n, int digits);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* Drops the first n bytes (n <= len).  The rest is moved only when more bytes were dropped than are left, so
 * that draining a long buffer in small steps takes linear time. */
void buf_consume(struct buf *b, size_t n);

/* Frees the memory of an empty buffer that has more than BUF_KEEP bytes: for buffers that live long and were
 * large once. */
enum { BUF_KEEP = 256 << 10 };
void buf_shrink(struct buf *b);

/* Empties the buffer and clears `failed`; the memory stays allocated. */
void buf_clear(struct buf *b);

/* Returns the NUL-terminated bytes, which the caller frees, or NULL when the buffer has failed; the buffer is
 * then empty. */
char *buf_take(struct buf *b);

static inline bool buf_ok(const struct buf *b) {
  return !b->failed;
}

#endif
