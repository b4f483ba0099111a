/* Row i of the table belongs to code -1 - i. */
#include "base/err.h"

#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct row {
  const char *wire, *sentence;
  int http, exit;
} rows[] = {
#define X(code, wire, http, exit, sentence) {wire, sentence, http, exit},
    ERR_TABLE(X)
#undef X
};

static const struct row *row_of(int code) {
  int i = -1 - code;
  return &rows[i >= 0 && i < ERR_COUNT ? i : ERR_SYSTEM_INDEX];
}

const char *err_wire(int code) {
  return row_of(code)->wire;
}
int err_http(int code) {
  return row_of(code)->http;
}
int err_exit(int code) {
  return row_of(code)->exit;
}
const char *err_sentence(int code) {
  return row_of(code)->sentence;
}

int err_from_wire(const char *wire) {
  for (int i = 0; i < ERR_COUNT; i++)
    if (strcmp(rows[i].wire, wire) == 0) return -1 - i;
  return ERR_SYSTEM;
}

int error_vset(struct error *e, int code, const char *format, va_list args) {
  if (!e) return code;
  char text[sizeof e->text + 1]; /* one byte more than fits, so that text_escape marks text that was cut */
  if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
  text_escape(e->text, sizeof e->text, text, strlen(text));
  e->code = code;
  return code;
}

int(error_set)(struct error *e, int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  error_vset(e, code, format, args);
  va_end(args);
  return code;
}

int error_system(struct error *e, int number, const char *what) {
  const char *remedy = number == EMFILE ? " (raise the limit, which `ulimit -n' shows)" : "";
  return error_set(e, ERR_SYSTEM, "%s: %s%s", what, number ? strerror(number) : "the reason is not known",
                   remedy);
}

const char *error_text(const struct error *e) {
  return e->text[0] ? e->text : err_sentence(e->code);
}
