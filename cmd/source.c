/* Invariant: the buffer never holds more than SOURCE_MAX bytes and one chunk. */
#include "source.h"

#include <errno.h>
#include <string.h>

int source_read(FILE *in, const char *name, struct buf *out, struct error *e) {
  char chunk[16384];
  for (size_t n; in && out->len <= SOURCE_MAX && (n = fread(chunk, 1, sizeof chunk, in)) > 0;) {
    if (out->len == 0 && chunk[0] == '#') buf_puts(out, "--");
    buf_append(out, chunk, n);
  }
  if (!in || ferror(in)) return error_set(e, ERR_USAGE, "%s: %s", name, strerror(errno));
  if (out->len > SOURCE_MAX) return error_set(e, ERR_TOO_LARGE, "%s: the code is larger than 16 MiB", name);
  return buf_ok(out) ? 0 : error_set(e, ERR_NOMEM, "%s", err_sentence(ERR_NOMEM));
}
