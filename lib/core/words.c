/* Invariant: a block ends with the NUL of its last word, also where that word was cut. */
#include "core/words.h"

#include <stdlib.h>
#include <string.h>

/* The bytes of the block that fit into n without cutting a character of UTF-8. */
static size_t whole_characters(const char *text, size_t n) {
  while (n && ((unsigned char)text[n] & 0xc0) == 0x80) n--;
  return n;
}

struct words words_make(const char *name, char *const *argv, size_t max) {
  struct buf b = BUF_INIT;
  for (const char *word = name; word && b.len <= max; word = *++argv)
    buf_append(&b, word, strnlen(word, max + 1) + 1);
  if (buf_ok(&b) && b.len > max + 1) {
    b.len = whole_characters(b.data, max);
    if (!words_are(b.data, b.len)) buf_putc(&b, '\0');
  }
  size_t n = b.len;
  return (struct words){buf_take(&b), n};
}

struct words words_copy(struct words w) {
  struct words copy = {w.text ? malloc(w.n) : NULL, w.n};
  if (copy.text) memcpy(copy.text, w.text, w.n);
  return copy;
}

void words_finish(struct words *w) {
  free(w->text);
  *w = (struct words){0};
}

bool words_are(const char *text, size_t n) {
  return n && !text[n - 1];
}

const char *words_next(const char *text, size_t n, size_t *at, size_t *length) {
  if (*at >= n) return NULL;
  const char *word = text + *at;
  *length = strnlen(word, n - *at);
  *at += *length + 1;
  return word;
}

void words_line(const char *text, size_t n, struct buf *out) {
  size_t length;
  const char *word;
  buf_puts(out, "");
  for (size_t at = 0; (word = words_next(text, n, &at, &length));) {
    if (word != text) buf_putc(out, ' ');
    buf_append(out, word, length);
  }
}

void words_put(struct words w, struct term_writer *out) {
  size_t length, list = term_open(out, TERM_LIST);
  uint32_t count = 0;
  const char *word;
  for (size_t at = 0; (word = words_next(w.text, w.n, &at, &length)); count++)
    term_put_str(out, word, length);
  term_set_count(out, list, count);
}
