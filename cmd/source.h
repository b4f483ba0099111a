/* source: Lua code as the tools read it. */
#ifndef CMD_SOURCE_H
#define CMD_SOURCE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdio.h>

enum { SOURCE_MAX = 16 << 20 };

/* Appends all that `in` has to *out (empty before).  A first line that begins with '#' is for the system, not
 * for Lua: it becomes a comment, and keeps its number.  `name` is what messages call it.  in may be NULL:
 * then it could not be opened, and errno says why. */
int source_read(FILE *in, const char *name, struct buf *out, struct error *e) MUST_CHECK;

#endif
