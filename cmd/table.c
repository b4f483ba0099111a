/* Invariant: every cell is text in UTF-8, and its width is counted in columns of a terminal: table_begin sets
 * the locale that mbtowc and wcwidth need, whatever the environment says. */
#include "table.h"

#include "base/text.h"

#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

/* How many bytes at the start are printable ASCII, each a column wide. */
static size_t ascii(const char *text) {
  size_t n = 0;
  while (text[n] >= ' ' && text[n] <= '~') n++;
  return n;
}

/* --- texts of members ---------------------------------------------------------------------------------- */

void table_text(const struct table *table, const json_t *row, const char *key, struct buf *out) {
  (void)table;
  const char *text = tool_member(row, key);
  buf_escape(out, text, strlen(text));
}

void table_word(const struct table *table, const json_t *row, const char *key, struct buf *out) {
  (void)table;
  const char *word = tool_member(row, key);
  wchar_t wide;
  size_t plain = ascii(word);
  buf_append(out, word, plain);
  for (const char *c = *word ? word + plain : "-"; *c;) {
    int n = mbtowc(&wide, c, MB_CUR_MAX);
    bool shows = n > 0 && iswprint((wint_t)wide);
    buf_append(out, shows ? c : "?", shows ? (size_t)n : 1);
    c += n > 0 ? n : 1;
  }
}

void table_integer(const struct table *table, const json_t *row, const char *key, struct buf *out) {
  (void)table;
  const json_t *n = json_object_get(row, key);
  if (n)
    buf_number(out, json_integer_value(n), 1);
  else
    buf_putc(out, '-');
}

void table_tenths(struct buf *out, int64_t n) {
  buf_number(out, n / 10, 1);
  buf_putc(out, '.');
  buf_number(out, n % 10, 1);
}

void table_bytes(const struct table *table, const json_t *row, const char *key, struct buf *out) {
  (void)table;
  const json_t *bytes = json_object_get(row, key);
  double n = json_number_value(bytes);
  const char *unit = "\0KMGT";
  for (; n >= 999.5 && unit[1]; unit++) n /= 1024;
  if (!bytes) {
    buf_putc(out, '-');
    return;
  }
  if (*unit && n < 9.95) {
    table_tenths(out, (int64_t)(n * 10 + 0.5));
  } else {
    buf_number(out, (int64_t)(n + 0.5), 1);
  }
  if (*unit) buf_putc(out, *unit);
}

void table_age(const struct table *table, const json_t *row, const char *key, struct buf *out) {
  (void)table;
  static const struct {
    long long seconds;
    char letter;
  } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
  long long age = json_integer_value(json_object_get(row, key)) / 1000;
  size_t i = 0;
  while (i + 1 < sizeof units / sizeof *units && age < units[i].seconds) i++;
  buf_number(out, age / units[i].seconds, 1);
  buf_putc(out, units[i].letter);
}

void table_pid(const struct table *table, const json_t *row, const char *key, struct buf *out) {
  char pid[NPID_TEXT_SIZE];
  (void)key;
  buf_puts(out, tool_pid(table->m, row, table->full, pid));
}

/* --- lines --------------------------------------------------------------------------------------------- */

static void write_line(struct buf *line) {
  buf_putc(line, '\n');
  tool_need(buf_ok(line) ? line->data : NULL);
  fwrite(line->data, 1, line->len, stdout);
  buf_clear(line);
}

/* Prints the cells that are not empty, separated by one blank. */
static void print_row(const struct table *table, const json_t *row) {
  struct buf line = BUF_INIT;
  for (const struct table_column *c = table->columns; c->put; c++) {
    size_t before = line.len;
    if (before) buf_putc(&line, ' ');
    size_t start = line.len;
    c->put(table, row, c->key, &line);
    if (line.len == start) line.len = before;
  }
  write_line(&line);
  buf_finish(&line);
}

/* --- columns ------------------------------------------------------------------------------------------- */

/* Passes over the characters that fit into so many columns, and returns how many bytes they have; *width
 * becomes how many columns. */
static size_t measure(const char *text, int columns, int *width) {
  wchar_t wide;
  size_t at = ascii(text);
  if (at > (size_t)columns) at = (size_t)columns;
  *width = (int)at;
  for (int n; (n = mbtowc(&wide, text + at, MB_CUR_MAX)) > 0; at += (size_t)n) {
    int more = wcwidth(wide) > 0 ? wcwidth(wide) : 0;
    if (*width + more > columns) break;
    *width += more;
  }
  return at;
}

static int width_of(const char *text) {
  int width;
  measure(text, INT_MAX, &width);
  return width;
}

size_t table_fit(const char *text, int columns) {
  int width;
  return measure(text, columns > 0 ? columns : 0, &width);
}

/* Returns the text of a cell, or of the heading when row is NULL; valid until the next call with this buffer.
 */
static const char *cell(const struct table *table, const struct table_column *c, const json_t *row,
                        struct buf *text) {
  buf_clear(text);
  if (!row) return c->head;
  c->put(table, row, c->key, text);
  tool_need(buf_ok(text) ? text : NULL);
  return text->len ? text->data : "";
}

static void widen(int *widest, int width) {
  if (width > *widest) *widest = width;
}

void table_widths(const struct table *table, const json_t *rows, size_t from, size_t to, int *widths) {
  struct buf text = BUF_INIT;
  for (const struct table_column *c = table->columns; c->put; c++, widths++) {
    widen(widths, width_of(c->head));
    widen(widths, c->least);
    for (size_t i = from; i < to; i++)
      widen(widths, width_of(cell(table, c, json_array_get(rows, i), &text)));
  }
  buf_finish(&text);
}

static void put_blanks(struct buf *line, int n) {
  static const char blanks[] = "                                ";
  for (int some; n > 0; n -= some) {
    some = n < (int)sizeof blanks - 1 ? n : (int)sizeof blanks - 1;
    buf_append(line, blanks, (size_t)some);
  }
}

static void put_padded(struct buf *line, const struct table_column *c, int width, const char *text) {
  bool last = !c[1].put;
  int space = last ? 0 : width - width_of(text);
  if (c->right) put_blanks(line, space);
  buf_puts(line, text);
  if (!c->right) put_blanks(line, space);
  if (!last) put_blanks(line, 1);
}

void table_line(const struct table *table, const int *widths, const json_t *row, struct buf *line) {
  struct buf text = BUF_INIT;
  for (const struct table_column *c = table->columns; c->put; c++)
    put_padded(line, c, widths[c - table->columns], cell(table, c, row, &text));
  while (line->len && line->data[line->len - 1] == ' ') line->len--; /* blanks of a last cell that is empty */
  buf_finish(&text);
}

static void print_aligned(const struct table *table, const int *widths, const json_t *row) {
  struct buf line = BUF_INIT;
  table_line(table, widths, row, &line);
  write_line(&line);
  buf_finish(&line);
}

/* --- the table ----------------------------------------------------------------------------------------- */

void table_begin(struct table *table) {
  setlocale(LC_CTYPE, "C.UTF-8");
  if (table->headed && !table->json) table->rows = tool_need(json_array());
}

/* Prints the headings and the rows that were kept. */
static void print_kept(struct table *table) {
  size_t n = 0, i;
  json_t *row;
  while (table->columns[n].put) n++;
  table->widths = tool_need(calloc(n + 1, sizeof *table->widths));
  table_widths(table, table->rows, 0, json_array_size(table->rows), table->widths);
  print_aligned(table, table->widths, NULL);
  json_array_foreach(table->rows, i, row) {
    print_aligned(table, table->widths, row);
  }
  json_decref(table->rows);
  table->rows = NULL;
}

void table_row(struct table *table, json_t *row) {
  if (table->json) {
    tool_print(row);
  } else if (table->widths) {
    print_aligned(table, table->widths, row);
  } else if (table->rows) {
    if (json_array_append(table->rows, row)) tool_need(NULL);
    if (json_array_size(table->rows) == TABLE_KEPT) print_kept(table);
  } else {
    print_row(table, row);
  }
}

void table_rows(struct table *table, const json_t *rows) {
  size_t i;
  json_t *row;
  json_array_foreach(rows, i, row) {
    table_row(table, row);
  }
}

void table_end(struct table *table, bool empty) {
  if (table->rows && (empty || json_array_size(table->rows))) print_kept(table);
  json_decref(table->rows);
  table->rows = NULL;
  free(table->widths);
  table->widths = NULL;
}
