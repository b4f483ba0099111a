/* source: reads Lua code from a file. */
#ifndef CMD_SOURCE_H
#define CMD_SOURCE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdio.h>

enum { SOURCE_MAX = 16 << 20 };

/* Reads all of `in` into *out, which is empty before.  A first line that begins with '#' (as in #!/bin/sh)
 * becomes a Lua comment, so line numbers stay right.  Messages call the file `name`.  When `in` is NULL, the
 * file could not be opened, and errno says why.  ERR_USAGE, ERR_TOO_LARGE, ERR_NOMEM. */
int source_read(FILE *in, const char *name, struct buf *out, struct error *e) MUST_CHECK;

#endif
