/* text: reading decimal numbers, writing hexadecimal digits, checking UTF-8, and escaping text of peers and
 * clients before it is shown. Any thread. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads text that is exactly a decimal number in [low, high].  For any other text, returns false and leaves
 * *out untouched. */
bool text_integer(const char *text, int64_t low, int64_t high, int64_t *out);

/* How many bytes at the start are printable ASCII other than quote and backslash: a JSON string holds them
 * without escapes, and they are UTF-8. */
size_t text_plain(const char *bytes, size_t n);

/* Are the n bytes well-formed UTF-8 (no surrogates, no overlong forms)? */
bool text_utf8(const char *bytes, size_t n);

/* Writes bytes as 2 * n hexadecimal digits, in lower case, and a NUL. */
void text_hex(char *out, const void *bytes, size_t n);

/* Is one word a likely slip for the other: at most two letters (one, in words of up to three) were left out,
 * added, changed, or exchanged with the next?  Upper and lower case are the same.  Words of more than 63
 * bytes are not compared. */
bool text_near(const char *a, const char *b);

/* Text that comes from somebody else (a peer, a client, a file) is escaped before it is logged or printed to
 * a terminal.  Characters that a terminal acts on, or that begin a new line, become visible: control
 * characters are written as \n, \t, \r or \xHH, control characters of Unicode (U+0080 to U+009F, line ends,
 * directions of writing) as \uHHHH, and bytes that are no UTF-8 as \xHH.  A backslash stays as it is, so
 * escaping text again changes nothing.
 *
 * text_escape writes at most size - 1 bytes and a NUL; text that is longer ends in "...".  Returns the length
 * of what was written.  out must not overlap bytes.  buf_escape appends all of it. */
size_t text_escape(char *out, size_t size, const char *bytes, size_t n);
void buf_escape(struct buf *b, const char *bytes, size_t n);

#endif
