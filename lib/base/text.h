/* text: numbers in text, and the bytes of strings.  Any thread. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A whole decimal number in [low, high] and nothing else; false leaves *out alone. */
bool text_integer(const char *text, int64_t low, int64_t high, int64_t *out);

/* How many bytes from the start a JSON string holds as they are, and need no look for UTF-8: printable ASCII
 * but quote and backslash. */
size_t text_plain(const char *bytes, size_t n);

/* Is it well-formed UTF-8 (no surrogates, no overlong forms)? */
bool text_utf8(const char *bytes, size_t n);

#endif
