/* Invariant: besides the caller's buffers, a cookie is only in buffers on the stack, which are overwritten
 * before the function returns. */
#include "core/cookie.h"

#include "base/random.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Reads line number set->count + 1. */
static int take_line(const char *what, const char *line, size_t n, struct cookies *set, struct error *e) {
  size_t number = set->count + 1;
  if (n > COOKIE_MAX)
    return error_set(e, ERR_TOO_LARGE, "%s: the cookie has more than %d bytes", what, COOKIE_MAX);
  if (!n) return error_set(e, ERR_COOKIE, "%s: line %zu, which should be a cookie, is empty", what, number);
  if (set->count == COOKIES_MAX)
    return error_set(e, ERR_COOKIE, "%s: more than %d cookies (one a line)", what, COOKIES_MAX);
  struct cookie *c = &set->all[set->count];
  memcpy(c->bytes, line, n);
  c->len = n;
  for (size_t i = 0; i < set->count; i++)
    if (cookie_equal(&set->all[i], c))
      return error_set(e, ERR_COOKIE, "%s: line %zu is the same cookie as line %zu", what, number, i + 1);
  set->count++;
  return 0;
}

int cookies_parse(const char *what, const char *text, size_t n, struct cookies *out, struct error *e) {
  struct cookies set = {.count = 0};
  int code = 0;
  if (n && text[n - 1] == '\n') n--;
  if (!n) return error_set(e, ERR_COOKIE, "%s: the cookie is empty", what);
  if (memchr(text, 0, n)) return error_set(e, ERR_COOKIE, "%s: the cookie has a NUL in it", what);
  for (const char *at = text, *end = text + n; !code && at <= end;) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    if (!newline) newline = end;
    code = take_line(what, at, (size_t)(newline - at), &set, e);
    at = newline + 1;
  }
  if (!code) *out = set;
  cookies_finish(&set);
  return code;
}

size_t cookies_text(const struct cookies *set, char out[COOKIES_TEXT_MAX]) {
  size_t n = 0;
  for (size_t i = 0; i < set->count; i++) {
    memcpy(out + n, set->all[i].bytes, set->all[i].len);
    n += set->all[i].len;
    out[n++] = '\n';
  }
  return n;
}

int cookie_make(struct cookie *out, struct error *e) {
  unsigned char secret[COOKIE_RANDOM / 2];
  if (random_bytes(secret, sizeof secret)) return error_system(e, errno, "random bytes for a cookie");
  *out = (struct cookie){.len = COOKIE_RANDOM};
  text_hex(out->bytes, secret, sizeof secret);
  explicit_bzero(secret, sizeof secret);
  return 0;
}

bool cookie_equal(const struct cookie *a, const struct cookie *b) {
  return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

bool cookies_add(struct cookies *set, const struct cookie *c) {
  if (set->count == COOKIES_MAX) return false;
  set->all[set->count++] = *c;
  return true;
}

void cookies_promote(struct cookies *set, size_t at) {
  struct cookie first = set->all[at];
  memmove(&set->all[1], &set->all[0], at * sizeof *set->all);
  set->all[0] = first;
  explicit_bzero(&first, sizeof first);
}

void cookies_remove(struct cookies *set, size_t at) {
  set->count--;
  memmove(&set->all[at], &set->all[at + 1], (set->count - at) * sizeof *set->all);
  explicit_bzero(&set->all[set->count], sizeof *set->all);
}

void cookies_finish(struct cookies *set) {
  explicit_bzero(set, sizeof *set);
}
