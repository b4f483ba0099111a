/* cmd/rows: a line is read as the general parser reads it, whatever came before it. */
#include "../../cmd/rows.h"

#include "tap.h"
#include "wire/json.h"

#include <string.h>

static json_t *read_line(struct rows *rows, const char *text) {
  char line[512]; /* no NUL behind the text, but a newline */
  size_t n = strlen(text);
  snprintf(line, sizeof line, "%s\n", text);
  return rows_read(rows, line, n);
}

static bool right(struct rows *rows, const char *text) {
  json_t *row = read_line(rows, text), *wanted = json_parse(text, strlen(text), NULL);
  bool same = row ? json_equal(row, wanted) : !wanted;
  json_decref(wanted);
  return same;
}

static const char *const lines[] = {
    "{\"pid\":\"a.1\",\"n\":12,\"name\":\"x\"}",
    "{\"pid\":\"a.22\",\"n\":-1,\"name\":\"\"}",
    "{\"pid\":\"a.22\",\"n\":0,\"name\":\"longer than before\"}",
    "{\"pid\":\"a.3\",\"n\":12}",
    "{\"pid\":\"a.4\",\"n\":999999999999999999}",
    "{\"pid\":\"a.4\",\"n\":9223372036854775807}",
    "{\"pid\":\"a.4\",\"n\":99999999999999999999}", /* no JSON to jansson */
    "{\"pid\":\"a.5\",\"n\":1.5}",
    "{\"pid\":\"a.5\",\"n\":1e3}",
    "{\"pid\":\"a.6\",\"n\":-}",
    "{\"pid\":\"a.6\",\"n\":}",
    "{\"pid\":\"a.6\",\"n\":7",
    "{\"pid\":\"a.6\",\"n\":7}}",
    "{\"pid\":\"a.6\",\"n\":7,",
    "{\"pid\":\"a.6\",\"n\":7,\"",
    "{\"pid\":\"a.6",
    "{\"pid\":\"a.6\\\"\",\"n\":7}",
    "{\"pid\":\"\\u00e4\",\"n\":7}",
    "{\"pid\":\"\xc3\xa4\",\"n\":7}",
    "{\"pid\":\"\xff\",\"n\":7}",
    "{\"pid\":7,\"n\":\"7\"}",
    "{\"pid\":{\"$bytes\":\"/w==\"},\"n\":7}",
    "{\"n\":7,\"pid\":\"b\"}",
    "{ \"pid\": \"b\", \"n\": 7 }",
    "{}",
    "[]",
    "7",
    "",
    "{",
};

static void test_all_pairs(void) {
  enum { LINES = sizeof lines / sizeof *lines };
  int wrong = 0;
  struct rows rows = {0};
  for (size_t i = 0; i < LINES; i++)
    for (size_t j = 0; j < LINES; j++) wrong += !right(&rows, lines[i]) + !right(&rows, lines[j]);
  ok(!wrong, "each line is read as it is, after each other one (%d are not)", wrong);
  rows_finish(&rows);
}

static void test_reuse(void) {
  struct rows rows = {0};
  json_t *first = read_line(&rows, lines[0]);
  ok(read_line(&rows, lines[1]) == first, "a row with the same members is read into the same object");
  json_t *other = read_line(&rows, lines[3]);
  ok(other != first && read_line(&rows, lines[2]) == first && read_line(&rows, lines[4]) == other,
     "rows of two kinds, too");
  json_incref(first);
  json_t *next = read_line(&rows, lines[0]);
  ok(next != first, "but not where the caller has kept it");
  is(json_string_value(json_object_get(first, "name")), "longer than before", "which stays as it was");
  json_decref(first);
  rows_finish(&rows);
}

int main(void) {
  test_all_pairs();
  test_reuse();
  return tap_end();
}
