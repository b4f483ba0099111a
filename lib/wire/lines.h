/* lines: cuts a stream of bytes into lines.  One owner, no locking. */
#ifndef WIRE_LINES_H
#define WIRE_LINES_H

#include "base/buf.h"
#include "base/err.h"

struct lines {
  struct buf pending; /* the beginning of a line that has not ended */
  size_t max;         /* a longer line is ERR_TOO_LARGE */
};

void lines_init(struct lines *l, size_t max);
void lines_finish(struct lines *l);

/* Takes n bytes of the stream, and calls line for each line that ends in them, without the newline; a NUL
 * follows the text.  When line does not return 0, the rest of the bytes is dropped and that value returned.
 * Else 0, ERR_TOO_LARGE or ERR_NOMEM. */
int lines_feed(struct lines *l, const char *bytes, size_t n, int (*line)(void *data, char *text, size_t n),
               void *data) MUST_CHECK;

#endif
