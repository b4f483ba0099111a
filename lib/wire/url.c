/* libcurl leaves a broken escape as it stands and decodes %00, so url_unescape refuses both before it calls
 * libcurl. */
#include "wire/url.h"

#include <ctype.h>
#include <curl/curl.h>
#include <limits.h>
#include <string.h>

void url_escape(struct buf *out, const char *text) {
  char *escaped = curl_easy_escape(NULL, text, 0);
  if (escaped)
    buf_puts(out, escaped);
  else
    out->failed = true;
  curl_free(escaped);
}

static bool is_well_formed(const char *at, const char *end) {
  while ((at = memchr(at, '%', (size_t)(end - at)))) {
    if (end - at < 3 || !isxdigit((unsigned char)at[1]) || !isxdigit((unsigned char)at[2])) return false;
    if (at[1] == '0' && at[2] == '0') return false;
    at += 3;
  }
  return true;
}

int url_unescape(struct buf *out, const char *segment, size_t n) {
  int length = 0;
  if (n > INT_MAX || memchr(segment, 0, n) || !is_well_formed(segment, segment + n)) return ERR_USAGE;
  if (n == 0) return 0; /* to libcurl a length of 0 means all of a C string */
  char *plain = curl_easy_unescape(NULL, segment, (int)n, &length);
  size_t before = out->len;
  if (plain) buf_append(out, plain, (size_t)length);
  curl_free(plain);
  if (plain && buf_ok(out)) return 0;
  out->len = before;
  return ERR_NOMEM;
}
