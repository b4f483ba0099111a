/* text: decimal numbers, UTF-8, and what JSON takes as it is.  Any thread. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads text that is a decimal number in [low, high] and nothing else.  False, with *out untouched,
 * otherwise. */
bool text_integer(const char *text, int64_t low, int64_t high, int64_t *out);

/* How many bytes at the start are printable ASCII other than quote and backslash: a JSON string holds them
 * without escapes, and they are UTF-8. */
size_t text_plain(const char *bytes, size_t n);

/* Are the n bytes well-formed UTF-8 (no surrogates, no overlong forms)? */
bool text_utf8(const char *bytes, size_t n);

#endif
