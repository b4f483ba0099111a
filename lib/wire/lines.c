/* Invariant: between two calls of lines_split, pending has no newline. */
#include "wire/lines.h"

#include <string.h>

enum { LINES_KEEP = 64 << 10 }; /* after a longer line the memory is freed */

void lines_init(struct lines *l, size_t max) {
  *l = (struct lines){.max = max};
}

void lines_finish(struct lines *l) {
  buf_finish(&l->pending);
}

static void settle(struct lines *l, size_t used) {
  buf_consume(&l->pending, used);
  if (!l->pending.len && l->pending.cap > LINES_KEEP) buf_finish(&l->pending);
}

int lines_split(struct lines *l, const char *bytes, size_t n, int (*line)(void *data, char *text, size_t n),
                void *data) {
  size_t start = 0, seen = l->pending.len;
  buf_append(&l->pending, bytes, n);
  if (!buf_ok(&l->pending)) return ERR_NOMEM;
  char *text = l->pending.data, *newline;
  int rc = 0;
  while (!rc && (newline = memchr(text + seen, '\n', l->pending.len - seen))) {
    size_t len = (size_t)(newline - text) - start;
    *newline = 0;
    rc = len > l->max ? ERR_TOO_LARGE : line(data, text + start, len);
    seen = start = (size_t)(newline - text) + 1;
  }
  if (!rc && l->pending.len - start > l->max) rc = ERR_TOO_LARGE;
  settle(l, rc ? l->pending.len : start); /* after a stop, the rest is dropped */
  return rc;
}
