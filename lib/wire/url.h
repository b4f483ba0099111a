/* url: one segment of a URL's path, with its escapes (%XX) and without.  Any thread. */
#ifndef WIRE_URL_H
#define WIRE_URL_H

#include "base/buf.h"
#include "base/err.h"

/* Appends the text, with %XX for each byte that RFC 3986 does not call unreserved; buf_ok tells whether
 * memory sufficed. */
void url_escape(struct buf *out, const char *text);

/* Appends the bytes that n characters of a segment stand for.  ERR_USAGE: a '%' without two hex digits, or
 * %00. ERR_NOMEM.  On failure out holds what it held before. */
int url_unescape(struct buf *out, const char *segment, size_t n) MUST_CHECK;

#endif
