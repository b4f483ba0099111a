/* Invariant: in CHUNKED_BODY at least one byte of the chunk is to come.  `count` is the number of bytes of
 * the present line, so that a line without an end is bounded. */
#include "wire/chunked.h"

#include <string.h>
#include <strings.h>

size_t chunked_head(char out[CHUNKED_HEAD], size_t n) {
  size_t digits = 1;
  while (n >> 4 * digits) digits++;
  for (size_t i = 0; i < digits; i++) out[i] = "0123456789abcdef"[n >> 4 * (digits - 1 - i) & 15];
  out[digits] = CHUNKED_TAIL[0];
  out[digits + 1] = CHUNKED_TAIL[1];
  return digits + 2;
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Begins the line before a chunk. */
static void expect_size(struct chunked *c) {
  c->state = CHUNKED_SIZE;
  c->left = 0;
  c->count = 0;
  c->digits = false;
}

/* Takes bytes of the head, and returns in *used how many. */
static int take_start(struct chunked *c, const char *bytes, size_t n, const struct chunked_events *events,
                      void *data, size_t *used) {
  for (*used = 0; *used < n;) {
    if (c->start_n == CHUNKED_START_MAX) return ERR_TOO_LARGE;
    char b = bytes[(*used)++];
    if (!b) return ERR_VERSION;
    c->start[c->start_n++] = b;
    if (b != '\n' || c->start_n < 4 || memcmp(c->start + c->start_n - 4, "\r\n\r\n", 4) != 0) continue;
    c->start[c->start_n] = 0;
    expect_size(c);
    return events->start(data, c->start);
  }
  return 0;
}

/* The line before a chunk has ended. */
static int end_size(struct chunked *c) {
  if (!c->digits) return ERR_VERSION;
  c->state = c->left ? CHUNKED_BODY : CHUNKED_LAST;
  c->count = 0;
  return 0;
}

/* Takes a byte of the line before a chunk. */
static int take_size(struct chunked *c, char b) {
  int value = c->state == CHUNKED_SIZE ? digit(b) : -1;
  if (++c->count > CHUNKED_LINE_MAX) return ERR_TOO_LARGE;
  if (b == '\n') return end_size(c);
  if (value < 0) {
    if (c->state == CHUNKED_SIZE && b != '\r' && b != ';' && b != ' ' && b != '\t') return ERR_VERSION;
    c->state = CHUNKED_SKIP;
    return 0;
  }
  c->digits = true;
  c->left = c->left << 4 | (unsigned)value;
  return c->left > CHUNKED_MAX ? ERR_TOO_LARGE : 0;
}

/* Takes a byte of the "\r\n" behind a chunk, or behind the line of the chunk of size 0. */
static int take_end(struct chunked *c, char b) {
  if (b != CHUNKED_TAIL[c->count++]) return ERR_VERSION;
  if (c->count < 2) return 0;
  if (c->state == CHUNKED_LAST)
    c->state = CHUNKED_OVER;
  else
    expect_size(c);
  return 0;
}

int chunked_take(struct chunked *c, const char *bytes, size_t n, const struct chunked_events *events,
                 void *data) {
  int code = 0;
  for (size_t used; !code && n; bytes += used, n -= used) {
    used = 1;
    switch (c->state) {
    case CHUNKED_START: code = take_start(c, bytes, n, events, data, &used); break;
    case CHUNKED_SIZE:
    case CHUNKED_SKIP: code = take_size(c, *bytes); break;
    case CHUNKED_BODY:
      used = c->left < n ? (size_t)c->left : n;
      c->left -= used;
      if (!c->left) c->state = CHUNKED_AFTER;
      code = events->body(data, bytes, used);
      break;
    case CHUNKED_RAW:
      used = n;
      code = events->body(data, bytes, n);
      break;
    case CHUNKED_AFTER:
    case CHUNKED_LAST: code = take_end(c, *bytes); break;
    default: code = ERR_VERSION;
    }
  }
  return code;
}

const char *chunked_field(const char *head, const char *name, size_t *n) {
  size_t len = strlen(name);
  for (const char *line = strchr(head, '\n'); line; line = strchr(line + 1, '\n')) {
    if (strncasecmp(line + 1, name, len) != 0 || line[1 + len] != ':') continue;
    const char *value = line + 1 + len + 1, *end = strchr(value, '\n');
    while (*value == ' ' || *value == '\t') value++;
    if (!end) end = value + strlen(value);
    while (end > value && strchr(" \t\r", end[-1])) end--;
    *n = (size_t)(end - value);
    return value;
  }
  return NULL;
}
