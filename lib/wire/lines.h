/* lines: cuts a stream of bytes into lines.  One thread at a time: it takes no lock. */
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

/* Appends n bytes of the stream, and calls line() for each line that ends in them; the text has no newline,
 * and a NUL follows it.  When line() returns another value than 0, lines_split drops the rest of the bytes
 * and returns that value.  Else it returns 0, ERR_TOO_LARGE or ERR_NOMEM. */
int lines_split(struct lines *l, const char *bytes, size_t n, int (*line)(void *data, char *text, size_t n),
                void *data) MUST_CHECK;

#endif
