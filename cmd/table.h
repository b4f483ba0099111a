/* table: prints rows for people, as columns, or for programs, as one JSON object a line.
 *
 * A row is the JSON object that the node answered.  A column names one member of the row and the function
 * that turns this member into text, so both forms are made from the same cells.  A tool fills in a `struct
 * table` and calls table_begin once, table_row for each row, and table_end once.
 *
 *   json                each row is one line, the object as it is
 *   lines (the default) each row is one line, its cells separated by one blank; cells that are empty are left
 *                       out
 *   headed              a line of headings, then the rows; each column is as wide as its widest cell
 *
 * The first two print each row at once, with one write to stdout's buffer, so several threads may call
 * table_row on one table.  A headed table keeps its rows until table_end,
 * and belongs to one thread; of more than TABLE_KEPT rows, the widths are those of the first ones, and the
 * others are printed at once. */
#ifndef CMD_TABLE_H
#define CMD_TABLE_H

#include "tool.h"

#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>

enum { TABLE_KEPT = 1000 };

struct table;

/* Appends the text of the row's member `key` to out. */
typedef void table_put(const struct table *table, const json_t *row, const char *key, struct buf *out);

struct table_column {
  const char *head; /* the heading; ASCII */
  const char *key;
  table_put *put;
  int least;  /* width in terminal columns, at the least */
  bool right; /* aligns the cells at their right edge */
};

#define TABLE_LAST                                                                                           \
  { .put = NULL } /* ends a list of columns */

struct table {
  const struct table_column *columns;
  const struct nodemsg *m; /* the node that answered: decides the form of pids */
  bool full;               /* pids in their portable form */
  bool json, headed;
  json_t *rows; /* of a headed table, until they are printed; else NULL */
  int *widths;  /* of the columns, once the headings are printed */
};

/* Sets this program's character set to UTF-8, which table_word and the widths of a headed table need.  Not
 * safe beside other threads; a table of lines without table_word can do without it. */
void table_begin(struct table *table);

/* Prints the row, or keeps a reference to it until table_end. */
void table_row(struct table *table, json_t *row);

/* Calls table_row for each object of an array. */
void table_rows(struct table *table, const json_t *rows);

/* Prints the rows that were kept.  empty: prints the headings also where there is no row. */
void table_end(struct table *table, bool empty);

/* --- lines of a headed table, for a tool that shows them itself ---------------------------------------- */

/* Widens widths[] (one for each column; 0 at first) to the headings and to the rows from..to of an array. */
void table_widths(const struct table *table, const json_t *rows, size_t from, size_t to, int *widths);

/* Appends the line of a row, or of the headings when row is NULL, without a newline. */
void table_line(const struct table *table, const int *widths, const json_t *row, struct buf *line);

/* How many bytes at the start of a text fit into so many columns of a terminal. */
size_t table_fit(const char *text, int columns);

/* --- texts of members ---------------------------------------------------------------------------------- */

/* Writes a string as it is, and nothing for any other value. */
table_put table_text;

/* Writes a string in one line that is safe on a terminal: each character that cannot be printed is '?', and
 * an empty or missing string is '-'. */
table_put table_word;

/* Writes an integer; '-' when it is missing. */
table_put table_integer;

/* Writes a number of bytes in at most four characters: 512, 1.5K, 23M; '-' when the member is missing. */
table_put table_bytes;

/* Appends n tenths as a decimal number with one place; n >= 0. */
void table_tenths(struct buf *out, int64_t n);

/* Writes milliseconds, rounded down to the largest unit: 5s, 12m, 3h, 40d. */
table_put table_age;

/* Writes the pid in the members "pid" and "short", in the form that tool_pid chooses; the key is not used. */
table_put table_pid;

#endif
