/* Bytes are checked 32, 16 or eight at a time where possible, since most bytes of most messages are in
 * strings. The block functions return the number of plain bytes at the start of whole blocks: a block that
 * has a byte that is not plain ends the run, where the instructions tell which byte it is at that byte. */
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

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

/* Does the word have a byte of at least 0x80? */
static bool word_high(uint64_t w) {
  return w & EACH(0x80);
}

/* Does the word, whose bytes are all below 0x80, have a byte below n <= 0x80?  ("Bit Twiddling Hacks",
 * Anderson.) */
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

#if defined(__x86_64__)

/* As signed numbers, the bytes that are not ASCII are below the space, like the control characters. */
__attribute__((target("avx2"))) static size_t plain_blocks_32(const char *s, size_t n) {
  const __m256i space = _mm256_set1_epi8(' '), quote = _mm256_set1_epi8('"'), slash = _mm256_set1_epi8('\\');
  for (size_t i = 0;; i += 32) {
    if (n - i < 32) return i;
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(s + i));
    __m256i bad = _mm256_or_si256(_mm256_cmpgt_epi8(space, v),
                                  _mm256_or_si256(_mm256_cmpeq_epi8(v, quote), _mm256_cmpeq_epi8(v, slash)));
    unsigned mask = (unsigned)_mm256_movemask_epi8(bad);
    if (mask) return i + (size_t)__builtin_ctz(mask);
  }
}

static size_t plain_blocks_16(const char *s, size_t n) {
  const __m128i space = _mm_set1_epi8(' '), quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
  for (size_t i = 0;; i += 16) {
    if (n - i < 16) return i;
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(s + i));
    __m128i bad = _mm_or_si128(_mm_cmpgt_epi8(space, v),
                               _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)));
    unsigned mask = (unsigned)_mm_movemask_epi8(bad);
    if (mask) return i + (size_t)__builtin_ctz(mask);
  }
}

/* The wider instructions are worth the question for long texts alone. */
static size_t plain_blocks(const char *s, size_t n) {
  enum { LONG_TEXT = 256 };
  return n >= LONG_TEXT && __builtin_cpu_supports("avx2") ? plain_blocks_32(s, n) : plain_blocks_16(s, n);
}

#elif defined(__aarch64__)

static size_t plain_blocks(const char *s, size_t n) {
  size_t i = 0;
  for (; n - i >= 16; i += 16) {
    int8x16_t v = vld1q_s8((const int8_t *)s + i);
    uint8x16_t bad = vorrq_u8(vcltq_s8(v, vdupq_n_s8(' ')),
                              vorrq_u8(vceqq_s8(v, vdupq_n_s8('"')), vceqq_s8(v, vdupq_n_s8('\\'))));
    if (vmaxvq_u8(bad)) break;
  }
  return i;
}

#else

static size_t plain_blocks(const char *s, size_t n) {
  (void)s, (void)n;
  return 0;
}

#endif

size_t text_plain(const char *bytes, size_t n) {
  size_t i = plain_blocks(bytes, n);
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

void text_hex(char *out, const void *bytes, size_t n) {
  static const char digits[] = "0123456789abcdef";
  const unsigned char *at = bytes;
  for (size_t i = 0; i < n; i++) {
    *out++ = digits[at[i] >> 4];
    *out++ = digits[at[i] & 15];
  }
  *out = '\0';
}

/* --- text of others ------------------------------------------------------------------------------------- */

enum { ESCAPE_MAX = 12 };

/* The code point of a well-formed sequence of UTF-8. */
static uint32_t code_point(const unsigned char *s, size_t len) {
  static const unsigned char first_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  uint32_t c = s[0] & first_bits[len];
  for (size_t i = 1; i < len; i++) c = c << 6 | (s[i] & 0x3F);
  return c;
}

/* Is this character (>= 0x80) a control character, invisible, or one that changes the direction of writing?
 */
static bool is_unseen(uint32_t c) {
  static const struct {
    uint32_t first, last;
  } ranges[] = {{0x80, 0x9F},     /* C1 controls */
                {0x200B, 0x200F}, /* zero width; direction */
                {0x2028, 0x202E}, /* ends of lines and paragraphs; direction */
                {0x2060, 0x206F}, /* the same */
                {0xFEFF, 0xFEFF}, /* byte order mark */
                {0xFFF9, 0xFFFB}, /* annotations */
                {0xE0000, 0xE0FFF} /* tags */};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    if (c >= ranges[i].first && c <= ranges[i].last) return true;
  return false;
}

/* Writes the escaped form of the first character of bytes to out, and returns how many bytes the character
 * has.
 */
static size_t escape_one(const char *bytes, size_t n, char out[ESCAPE_MAX + 1]) {
  static const char letters[] = {['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
  const unsigned char *s = (const unsigned char *)bytes;
  size_t len = utf8_sequence(s, n);
  uint32_t c = len ? code_point(s, len) : s[0];
  if (!len || c < ' ' || c == 0x7F) {
    char letter = c < sizeof letters ? letters[c] : 0;
    snprintf(out, ESCAPE_MAX + 1, letter ? "\\%c" : "\\x%02X", letter ? (unsigned)letter : (unsigned)c);
    return 1;
  }
  if (is_unseen(c)) {
    snprintf(out, ESCAPE_MAX + 1, "\\u%04X", (unsigned)c);
  } else {
    memcpy(out, bytes, len);
    out[len] = 0;
  }
  return len;
}

size_t text_escape(char *out, size_t size, const char *bytes, size_t n) {
  static const char more[] = "...";
  char one[ESCAPE_MAX + 1];
  size_t at = 0, cut = 0; /* cut: the greatest length after which `more` still fits */
  for (size_t i = 0; i < n;) {
    i += escape_one(bytes + i, n - i, one);
    size_t len = strlen(one);
    if (at + len >= size) {
      memcpy(out + cut, more, sizeof more);
      return cut + sizeof more - 1;
    }
    memcpy(out + at, one, len);
    at += len;
    if (at + sizeof more <= size) cut = at;
  }
  out[at] = 0;
  return at;
}

void buf_escape(struct buf *b, const char *bytes, size_t n) {
  char one[ESCAPE_MAX + 1];
  for (size_t i = 0; i < n;) {
    i += escape_one(bytes + i, n - i, one);
    buf_puts(b, one);
  }
}

static bool same_letter(char a, char b) {
  return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Damerau's distance (optimal string alignment), with three rows of the table. */
bool text_near(const char *a, const char *b) {
  enum { LONGEST = 63 };
  size_t n = strlen(a), m = strlen(b);
  if (!n || !m || n > LONGEST || m > LONGEST) return false;
  unsigned char rows[3][LONGEST + 1];
  for (size_t j = 0; j <= m; j++) rows[0][j] = (unsigned char)j;
  for (size_t i = 1; i <= n; i++) {
    unsigned char *row = rows[i % 3], *above = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];
    row[0] = (unsigned char)i;
    for (size_t j = 1; j <= m; j++) {
      int least = above[j - 1] + !same_letter(a[i - 1], b[j - 1]);
      if (above[j] + 1 < least) least = above[j] + 1;
      if (row[j - 1] + 1 < least) least = row[j - 1] + 1;
      if (i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) && same_letter(a[i - 2], b[j - 1]) &&
          before[j - 2] + 1 < least)
        least = before[j - 2] + 1;
      row[j] = (unsigned char)least;
    }
  }
  return rows[n % 3][m] <= ((n < m ? n : m) > 3 ? 2 : 1);
}
