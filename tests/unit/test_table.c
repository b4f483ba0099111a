/* The table of the tools: its columns, its lines and its JSON, all from one set of rows. */
#include "../../cmd/table.h"

#include "tap.h"

#include <stdlib.h>

/* What the table prints for the JSON array `rows`: a heap string. */
static char *printed(struct table *table, const char *rows) {
  char *text = NULL;
  size_t size = 0;
  FILE *real = stdout;
  json_t *array = json_loads(rows, 0, NULL);
  stdout = open_memstream(&text, &size);
  table_begin(table);
  table_rows(table, array);
  table_end(table, true);
  fclose(stdout);
  stdout = real;
  json_decref(array);
  return text;
}

#define prints(table, rows, want, ...)                                                                       \
  do {                                                                                                       \
    char *text = printed(table, rows);                                                                       \
    is(text, want, __VA_ARGS__);                                                                             \
    free(text);                                                                                              \
  } while (0)

static const struct table_column columns[] = {{.head = "NAME", .key = "name", .put = table_word},
                                              {"MAIL", "mailbox", table_integer, .right = true},
                                              {"ID", "id", table_integer, .least = 4},
                                              {.head = "WHAT", .key = "what", .put = table_word},
                                              TABLE_LAST};

static void test_columns(void) {
  struct table t = {.columns = columns, .headed = true};
  prints(&t, "[]", "NAME MAIL ID   WHAT\n", "an empty table is its headings");
  prints(&t, "[{\"name\": \"a\", \"mailbox\": 7, \"id\": 1, \"what\": \"x\"}]",
         "NAME MAIL ID   WHAT\na       7 1    x\n", "cells are as wide as the heading at the least");
  prints(&t,
         "[{\"name\": \"ticker\", \"mailbox\": 123456, \"id\": 12345, \"what\": \"x y\"}, {\"name\": \"b\"}]",
         "NAME     MAIL ID    WHAT\nticker 123456 12345 x y\nb           - -     -\n",
         "a column is as wide as its widest cell; a missing member is '-'");
  prints(&t, "[{\"name\": \"漢字\", \"what\": \"x\"}, {\"name\": \"é\", \"what\": \"y\"}]",
         "NAME MAIL ID   WHAT\n漢字    - -    x\né       - -    y\n",
         "width is counted in columns of the terminal, not in bytes");
  prints(&t, "[{\"name\": \"a\\u001b[31m\\nb\\u009b\", \"what\": \"\"}]",
         "NAME      MAIL ID   WHAT\na?[31m?b?    - -    -\n", "a control character is '?'");
}

static void test_lines(void) {
  static const struct table_column event[] = {{.key = "event", .put = table_text},
                                              {.key = "node", .put = table_text},
                                              {.key = "reason", .put = table_text},
                                              TABLE_LAST};
  struct table t = {.columns = event};
  prints(&t, "[]", "", "no rows, no lines");
  prints(
      &t,
      "[{\"event\": \"up\", \"node\": \"a@b\"}, {\"event\": \"down\", \"node\": \"a@b\", \"reason\": \"x\"}]",
      "up a@b\ndown a@b x\n", "one blank between cells, none for an empty one");
  prints(&t, "[{\"node\": \"a@b\", \"reason\": \"x\"}]", "a@b x\n", "nor before the first");
}

static void test_json(void) {
  struct table t = {.columns = columns, .headed = true, .json = true};
  prints(&t, "[]", "", "no rows, no objects");
  prints(&t, "[{\"what\": \"é\\n\", \"mailbox\": 7, \"real\": 1.0, \"no\": null, \"more\": [true, \"x\"]}]",
         "{\"what\":\"é\\n\",\"mailbox\":7,\"real\":1.0,\"no\":null,\"more\":[true,\"x\"]}\n",
         "every member with its type, also what no column shows, in the node's order");
  prints(&t, "[{\"a\": 1}, {\"b\": 9223372036854775807}]", "{\"a\":1}\n{\"b\":9223372036854775807}\n",
         "one object a line; an integer keeps its 64 bits");
}

/* One cell's text, by the function that makes it. */
static void test_texts(void) {
  static const struct {
    table_put *put;
    const char *row, *want;
  } cells[] = {
      {table_bytes, "{\"k\": 0}", "0"},
      {table_bytes, "{\"k\": 999}", "999"},
      {table_bytes, "{\"k\": 1000}", "1.0K"},
      {table_bytes, "{\"k\": 10240}", "10K"},
      {table_bytes, "{\"k\": 1023999}", "1.0M"},
      {table_bytes, "{\"k\": 5242880}", "5.0M"},
      {table_bytes, "{\"k\": 1099511627776}", "1.0T"},
      {table_bytes, "{}", "-"},
      {table_age, "{\"k\": 0}", "0s"},
      {table_age, "{\"k\": 59999}", "59s"},
      {table_age, "{\"k\": 60000}", "1m"},
      {table_age, "{\"k\": 7199999}", "1h"},
      {table_age, "{\"k\": 172800000}", "2d"},
      {table_integer, "{\"k\": -5}", "-5"},
      {table_text, "{\"k\": \"a b\"}", "a b"},
      {table_text, "{\"k\": 7}", ""},
      {table_word, "{\"k\": 7}", "-"},
  };
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
    const struct table_column one[] = {{.key = "k", .put = cells[i].put}, TABLE_LAST};
    struct table t = {.columns = one};
    char array[64], want[32];
    snprintf(array, sizeof array, "[%s]", cells[i].row);
    snprintf(want, sizeof want, "%s\n", cells[i].want);
    prints(&t, array, want, "%s is %s", cells[i].row, *cells[i].want ? cells[i].want : "nothing");
  }
}

/* Lines for a tool that shows the table itself. */
static void test_own_lines(void) {
  struct table t = {.columns = columns, .headed = true};
  struct buf line = BUF_INIT;
  int widths[4] = {0};
  json_t *rows =
      json_loads("[{\"name\": \"ticker\", \"id\": 123456}, {\"name\": \"漢\", \"mailbox\": 3}]", 0, NULL);
  table_widths(&t, rows, 1, 2, widths);
  ok(widths[0] == 4 && widths[1] == 4 && widths[2] == 4 && widths[3] == 4, "widths of some rows");
  table_widths(&t, rows, 0, 2, widths);
  ok(widths[0] == 6 && widths[2] == 6, "which other rows widen");
  table_line(&t, widths, NULL, &line);
  is(line.data, "NAME   MAIL ID     WHAT", "the headings");
  buf_clear(&line);
  table_line(&t, widths, json_array_get(rows, 1), &line);
  is(line.data, "漢        3 -      -", "a row");
  buf_finish(&line);
  json_decref(rows);
}

static void test_fit(void) {
  static const struct {
    const char *text;
    int columns;
    size_t bytes;
  } fits[] = {{"", 5, 0},     {"abc", 0, 0},   {"abc", -1, 0},     {"abc", 2, 2},  {"abc", 3, 3},
              {"abc", 9, 3},  {"aéb", 2, 3},   {"aéb", 3, 4},      {"漢字", 1, 0}, {"漢字", 2, 3},
              {"漢字", 3, 3}, {"漢字x", 5, 7}, {"e\u0301x", 1, 3}, {"ab漢", 3, 2}, {"ab漢", 4, 5}};
  for (size_t i = 0; i < sizeof fits / sizeof *fits; i++)
    ok(table_fit(fits[i].text, fits[i].columns) == fits[i].bytes, "%zu bytes of \"%s\" fit into %d columns",
       fits[i].bytes, fits[i].text, fits[i].columns);
}

int main(void) {
  test_columns();
  test_own_lines();
  test_fit();
  test_lines();
  test_json();
  test_texts();
  return tap_end();
}
