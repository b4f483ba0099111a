/* lines: cuts a byte stream into lines.  One owner. */
#ifndef WIRE_LINES_H
#define WIRE_LINES_H

#include "base/buf.h"
#include "base/err.h"

struct lines {
  struct buf pending; /* an unfinished line */
  size_t max;         /* a longer line is ERR_TOO_LARGE */
};

void lines_init(struct lines *l, size_t max);
void lines_finish(struct lines *l);

/* Feeds n bytes; calls line for each whole one, without its newline, in place (a NUL follows it).  Stops at
 * the first non-zero return, drops the rest, and returns that; else 0, ERR_TOO_LARGE or ERR_NOMEM. */
int lines_feed(struct lines *l, const char *bytes, size_t n, int (*line)(void *data, char *text, size_t n),
               void *data) MUST_CHECK;

#endif
