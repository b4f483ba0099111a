/* lines: cuts a stream of bytes into lines, which octets may follow.  One thread at a time: it takes no lock.
 */
#ifndef WIRE_LINES_H
#define WIRE_LINES_H

#include "base/buf.h"
#include "base/err.h"

struct lines {
  struct buf pending; /* the beginning of a line that has not ended, or whose octets have not all come */
  size_t max;         /* a longer line is ERR_TOO_LARGE, as are more octets */
  /* How many octets follow a line (SIZE_MAX: too many); NULL: none ever. */
  size_t (*octets)(const char *line, size_t n);
  size_t whole;  /* bytes of the pending line, with its newline and octets, once it has ended; else 0 */
  bool followed; /* octets follow it */
};

void lines_init(struct lines *l, size_t max);
void lines_finish(struct lines *l);

/* Appends n bytes of the stream, and calls line() for each line that is complete with them; the text has no
 * newline, and a NUL follows it.  The text of a line with octets goes on with its newline and the octets.
 * When line() returns another value than 0, lines_split drops the rest of the bytes and returns that value.
 * Else it returns 0, ERR_TOO_LARGE or ERR_NOMEM. */
int lines_split(struct lines *l, const char *bytes, size_t n, int (*line)(void *data, char *text, size_t n),
                void *data) MUST_CHECK;

#endif
