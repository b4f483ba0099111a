/* base64: RFC 4648 section 4, with padding.  Any thread. */
#ifndef WIRE_BASE64_H
#define WIRE_BASE64_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

/* Appends the base64 of n bytes to out; buf_ok tells whether memory sufficed. */
void base64_encode(struct buf *out, const void *bytes, size_t n);

/* Appends to out the bytes that n characters of base64 stand for.  False when memory runs out, or when the
 * text is not exactly what base64_encode makes (other characters, blanks, missing padding, unused bits that
 * are not 0); out then holds what it held before. */
bool base64_decode(struct buf *out, const char *text, size_t n);

#endif
