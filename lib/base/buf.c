/* Invariant: data is NULL and cap 0; or cap bytes are allocated from data on, len < cap, and data[len] is
 * NUL. The allocation begins `skipped` bytes before data. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_FIRST = 64 };

void buf_finish(struct buf *b) {
  if (b->data) free(b->data - b->skipped);
  *b = BUF_INIT;
}

/* Moves the bytes to the start of the allocation, over the bytes that were consumed. */
static void buf_settle(struct buf *b) {
  if (!b->skipped || !b->data) return;
  b->data = memmove(b->data - b->skipped, b->data, b->len + 1);
  b->cap += b->skipped;
  b->skipped = 0;
}

bool buf_reserve(struct buf *b, size_t n) {
  if (b->failed) return false;
  if (n < b->cap - b->len) return true; /* < and not <=: one byte is for the NUL */
  buf_settle(b);
  if (n < b->cap - b->len) return true;
  size_t cap = b->cap ? b->cap : BUF_FIRST;
  while (cap - b->len <= n) {
    if (cap > SIZE_MAX / 2) return b->failed = true, false;
    cap *= 2;
  }
  char *data = realloc(b->data, cap);
  if (!data) return b->failed = true, false;
  b->data = data;
  b->cap = cap;
  b->data[b->len] = 0;
  return true;
}

void buf_append(struct buf *b, const void *bytes, size_t n) {
  if (!buf_reserve(b, n)) return;
  if (n) memcpy(b->data + b->len, bytes, n);
  b->len += n;
  b->data[b->len] = 0;
}

void buf_puts(struct buf *b, const char *text) {
  buf_append(b, text, strlen(text));
}

void buf_putc(struct buf *b, char c) {
  buf_append(b, &c, 1);
}

void buf_number(struct buf *b, int64_t n, int digits) {
  char text[64];
  size_t at = sizeof text;
  uint64_t left = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
  for (; (left || digits > 0) && at > 1; left /= 10, digits--) text[--at] = (char)('0' + left % 10);
  if (n < 0) text[--at] = '-';
  buf_append(b, text + at, sizeof text - at);
}

void buf_printf(struct buf *b, const char *format, ...) {
  va_list args;
  va_start(args, format);
  buf_vprintf(b, format, args);
  va_end(args);
}

void buf_vprintf(struct buf *b, const char *format, va_list args) {
  if (!buf_reserve(b, 0)) return;
  va_list again;
  va_copy(again, args);
  size_t room = b->cap - b->len;
  int n = vsnprintf(b->data + b->len, room, format, args);
  if (n >= 0 && (size_t)n >= room) {
    b->data[b->len] = 0; /* removes the part that did fit: when memory runs out, nothing is appended */
    if (buf_reserve(b, (size_t)n)) vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
  }
  va_end(again);
  if (n < 0) b->failed = true;
  if (!b->failed) b->len += (size_t)n;
}

void buf_consume(struct buf *b, size_t n) {
  if (!n) return;
  b->data += n;
  b->len -= n;
  b->cap -= n;
  b->skipped += n;
  if (b->skipped > b->len) buf_settle(b); /* fewer bytes are moved than were consumed since the last move */
}

void buf_shrink(struct buf *b) {
  if (!b->len && !b->failed && b->cap + b->skipped > BUF_KEEP) buf_finish(b);
}

void buf_clear(struct buf *b) {
  b->len = 0;
  b->failed = false;
  if (b->data) b->data[0] = 0;
  buf_settle(b);
}

char *buf_take(struct buf *b) {
  char *data = buf_reserve(b, 0) ? b->data : NULL;
  if (data) {
    buf_settle(b);
    data = b->data;
  } else {
    buf_finish(b);
  }
  *b = BUF_INIT;
  return data;
}
