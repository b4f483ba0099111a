/* The bytes are looked at eight at a time where they can be: strings are the bulk of most messages. */
#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool text_integer(const char *text, int64_t low, int64_t high, int64_t *out) {
  const char *digits = text + (*text == '-');
  if (!*digits || digits[strspn(digits, "0123456789")]) return false;
  errno = 0;
  long long v = strtoll(text, NULL, 10);
  if (errno || v < low || v > high) return false;
  *out = v;
  return true;
}

/* The length of the well-formed UTF-8 sequence at s, or 0 (Unicode 15, table 3-7). */
static size_t utf8_sequence(const unsigned char *s, size_t n) {
  if (s[0] < 0x80) return 1;
  size_t len = s[0] >= 0xC2 && s[0] <= 0xDF   ? 2
               : (s[0] & 0xF0) == 0xE0        ? 3
               : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4
                                              : 0;
  if (!len || len > n) return 0;
  for (size_t i = 1; i < len; i++)
    if ((s[i] & 0xC0) != 0x80) return 0;
  switch (s[0]) {
  case 0xE0: return s[1] >= 0xA0 ? len : 0; /* overlong */
  case 0xED: return s[1] <= 0x9F ? len : 0; /* surrogates */
  case 0xF0: return s[1] >= 0x90 ? len : 0; /* overlong */
  case 0xF4: return s[1] <= 0x8F ? len : 0; /* beyond U+10FFFF */
  default: return len;
  }
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Has the word a byte of at least 0x80? */
static bool word_high(uint64_t w) {
  return w & EACH(0x80);
}

/* Has the word, whose bytes are all below 0x80, a byte below n <= 0x80?  ("Bit Twiddling Hacks", Anderson.)
 */
static bool word_below(uint64_t w, uint8_t n) {
  return (w - EACH(n)) & ~w & EACH(0x80);
}

static bool word_plain(uint64_t w) {
  return !word_high(w) && !word_below(w, ' ') && !word_below(w ^ EACH('"'), 1) &&
         !word_below(w ^ EACH('\\'), 1);
}

static uint64_t word_at(const char *s) {
  uint64_t w;
  memcpy(&w, s, sizeof w);
  return w;
}

size_t text_plain(const char *bytes, size_t n) {
  size_t i = 0;
  while (n - i >= 8 && word_plain(word_at(bytes + i))) i += 8;
  while (i < n && (unsigned char)bytes[i] >= ' ' && (unsigned char)bytes[i] < 0x80 && bytes[i] != '"' &&
         bytes[i] != '\\')
    i++;
  return i;
}

bool text_utf8(const char *bytes, size_t n) {
  const unsigned char *s = (const unsigned char *)bytes;
  while (n) {
    if (n >= 8 && !word_high(word_at((const char *)s))) {
      s += 8;
      n -= 8;
      continue;
    }
    size_t len = utf8_sequence(s, n);
    if (!len) return false;
    s += len;
    n -= len;
  }
  return true;
}
