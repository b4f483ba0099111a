/* Invariant: between two calls of lines_split, pending has no newline, or (whole) less than a line with its
 * octets. */
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

/* Looks for the end of the line at the start of `left` bytes, of which the first `seen` have no newline.  0,
 * or ERR_TOO_LARGE. */
static int find_end(struct lines *l, char *text, size_t left, size_t seen) {
  char *newline = memchr(text + seen, '\n', left - seen);
  size_t len = newline ? (size_t)(newline - text) : left, octets = 0;
  if (len > l->max) return ERR_TOO_LARGE;
  if (newline && l->octets) octets = l->octets(text, len);
  if (octets > l->max) return ERR_TOO_LARGE;
  if (newline && !octets) *newline = 0;
  if (newline) l->whole = len + 1 + octets;
  l->followed = octets;
  return 0;
}

int lines_split(struct lines *l, const char *bytes, size_t n, int (*line)(void *data, char *text, size_t n),
                void *data) {
  size_t start = 0, seen = l->pending.len;
  buf_append(&l->pending, bytes, n);
  if (!buf_ok(&l->pending)) return ERR_NOMEM;
  int rc = 0;
  while (!rc && start < l->pending.len) {
    char *text = l->pending.data + start;
    size_t left = l->pending.len - start;
    if (!l->whole) rc = find_end(l, text, left, seen - start);
    if (rc || !l->whole || l->whole > left) break;
    size_t whole = l->whole;
    l->whole = 0;
    seen = start += whole;
    rc = line(data, text, l->followed ? whole : whole - 1);
  }
  if (rc) l->whole = 0;
  settle(l, rc ? l->pending.len : start); /* after a stop, the rest is dropped */
  return rc;
}
