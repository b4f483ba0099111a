/* chunked: reads the HTTP/1.1 message of a link: its head, and its body of chunks (RFC 9112, 7.1), in any
 * pieces.  A link's sender writes a chunk with chunked_head, its bytes and CHUNKED_TAIL; CHUNKED_END ends the
 * body.  Extensions of chunks are skipped, and trailers are refused.  One owner, no locking. */
#ifndef WIRE_CHUNKED_H
#define WIRE_CHUNKED_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  CHUNKED_START_MAX = 4096, /* bytes of the head of a message */
  CHUNKED_LINE_MAX = 256,   /* bytes of the line before a chunk */
  CHUNKED_MAX = 256 << 20,  /* bytes of a chunk; a longer one is refused */
  CHUNKED_HEAD = 10,        /* the most bytes that chunked_head writes */
};
#define CHUNKED_TAIL "\r\n"
#define CHUNKED_END  "0\r\n\r\n"

/* Writes the line before a chunk of n (1 to CHUNKED_MAX) bytes, and returns its length. */
size_t chunked_head(char out[CHUNKED_HEAD], size_t n);

enum chunked_state {
  CHUNKED_START, /* in the head of the message */
  CHUNKED_SIZE,  /* in the digits of a chunk's size */
  CHUNKED_SKIP,  /* behind them, in the same line */
  CHUNKED_BODY,  /* in the bytes of a chunk */
  CHUNKED_AFTER, /* in the line end behind them */
  CHUNKED_LAST,  /* in the empty line behind the chunk of size 0 */
  CHUNKED_OVER,  /* behind the message */
  CHUNKED_RAW,   /* behind the head of a message whose body has no chunks, and ends with the connection */
};

struct chunked {
  enum chunked_state state;
  uint64_t left;                     /* of the chunk; in CHUNKED_SIZE: its size so far */
  size_t count;                      /* bytes of the line so far */
  bool digits;                       /* the size has a digit */
  size_t start_n;                    /* bytes in start[] */
  char start[CHUNKED_START_MAX + 1]; /* the head of the message, and a NUL when it is complete */
};

/* What a message is made of.  Either function may return a code, which ends the reading. */
struct chunked_events {
  /* The head is complete: lines, each with its \r\n.  May set the state to CHUNKED_RAW. */
  int (*start)(void *data, const char *head);
  int (*body)(void *data, const char *bytes, size_t n);
};

/* Takes n bytes of the connection.  0; the code that a function of the events has returned; ERR_VERSION when
 * the bytes are no such message, or bytes follow its end; ERR_TOO_LARGE for a longer head, line or chunk than
 * above.  After a code, the reader must not be used. `c` may not be freed by the events. */
int chunked_take(struct chunked *c, const char *bytes, size_t n, const struct chunked_events *events,
                 void *data) MUST_CHECK;

/* The value of a field of a head, without the spaces around it; its length is *n.  NULL when the head has no
 * such field. */
const char *chunked_field(const char *head, const char *name, size_t *n);

#endif
