/* octets: a stream of records, for answers whose output travels as bytes (node-http(7)): a byte for the kind
 * of the record, the length of its content (4 bytes, the most significant first), and the content.  One
 * thread at a time: it takes no lock. */
#ifndef WIRE_OCTETS_H
#define WIRE_OCTETS_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define OCTETS_TYPE "application/x-node-octets" /* the media type */

enum octets_kind {
  OCTETS_DOCUMENT = 'J', /* a JSON document */
  OCTETS_STDOUT = 'O',   /* bytes of standard output, */
  OCTETS_STDERR = 'E',   /* or of standard error */
};

/* Appends a record; n is at most UINT32_MAX. */
void octets_put(struct buf *out, enum octets_kind kind, const void *bytes, size_t n);

struct octets_events {
  int (*document)(void *data, char *text, size_t n); /* a whole document; a NUL follows the text */
  int (*bytes)(void *data, bool is_stderr, const char *bytes, size_t n); /* the next bytes of output */
};

struct octets {
  unsigned char head[5];
  size_t head_len;
  uint32_t left;       /* bytes of the content that have not come */
  struct buf document; /* what has come of a document */
  size_t max;          /* a longer document is ERR_TOO_LARGE */
};

void octets_init(struct octets *o, size_t max);
void octets_finish(struct octets *o);

/* Reads n more bytes of the stream.  Bytes of output are passed on as they come, so that a record is not
 * kept. When a callback returns another value than 0, the rest is dropped and that value is returned.  Else:
 * 0, ERR_TOO_LARGE, ERR_NOMEM, or ERR_VERSION for a kind that is not known. */
int octets_split(struct octets *o, const char *bytes, size_t n, const struct octets_events *events,
                 void *data) MUST_CHECK;

/* Has the stream ended within a record? */
bool octets_inside(const struct octets *o);

#endif
