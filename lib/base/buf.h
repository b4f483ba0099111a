/* buf: a growable byte buffer that remembers its first failure.
 *
 * Appending never has to be checked one by one: when memory runs out the buffer turns `failed`, further
 * appends do nothing, and the user asks once at the end (buf_ok).  Owned by the caller; no locking. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
  char *data; /* len bytes, then a NUL that len does not count, once anything was appended */
  size_t len;
  size_t cap;     /* bytes from data on */
  size_t skipped; /* bytes before data: consumed, not yet given back */
  bool failed;
};

#define BUF_INIT ((struct buf){0})

/* Frees what the buffer holds and leaves it empty and usable. */
void buf_finish(struct buf *b);

/* Makes room for n more bytes; false (and failed) when memory ran out. */
bool buf_reserve(struct buf *b, size_t n);

void buf_append(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *text);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* Drops the first n bytes (n <= len). What is left moves only now and then, so draining a long buffer in
 * small steps costs no more than draining it at once. */
void buf_consume(struct buf *b, size_t n);

/* Once it is empty, gives back memory beyond BUF_KEEP: for buffers that live long and were once large. */
enum { BUF_KEEP = 256 << 10 };
void buf_shrink(struct buf *b);

/* Empties the buffer, keeps its memory, forgives a failure. */
void buf_clear(struct buf *b);

/* Hands the NUL-terminated bytes over to the caller (free()), or NULL when the buffer failed; the buffer is
 * empty afterwards. */
char *buf_take(struct buf *b);

static inline bool buf_ok(const struct buf *b) {
  return !b->failed;
}

#endif
