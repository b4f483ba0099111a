/* Reads values from JSON text and compares with jansson: text that jansson refuses must be refused, and text
 * that jansson accepts must be read, or refused with another error than ERR_BAD_JSON. */
#include "fuzz.h"

#include "wire/json.h"

#include <stdlib.h>
#include <string.h>

/* 1 when jansson accepts the text, 0 when it does not. -1: no comparison, because jansson refuses a NUL in a
 * key, and overlooks a NUL after a number. */
static int jansson_takes(const char *text, size_t n) {
  json_error_t why;
  json_t *v = json_loadb(text, n, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &why);
  int takes = v ? json_is_array(v) : strstr(why.text, "NUL byte in object key") ? -1 : 0;
  json_decref(v);
  return memchr(text, 0, n) ? -1 : takes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  const char *text = (const char *)data;
  struct json_source s = {text, text, text + n};
  struct nodetab *nodes = nodetab_new("one@rane", 3);
  struct term_writer w = TERM_WRITER_INIT;
  struct error e = {0};
  uint32_t count = 0;
  int rc = json_get_values(&s, nodes, JSON_WITH_CODE, &w, &count, &e);
  int takes = jansson_takes(text, n);
  if (rc ? e.code != rc || s.at != text || (takes == 1 && rc == ERR_BAD_JSON) : !takes) abort();
  term_writer_finish(&w);
  nodetab_free(nodes);
  return 0;
}
