/* rows: reads the lines of a long list, each of them a flat JSON object, in a tenth of the time that a
 * general parser takes: most lines have the members of a line before them, and only their values are
 * replaced. */
#ifndef CMD_ROWS_H
#define CMD_ROWS_H

#include <jansson.h>
#include <stddef.h>

enum { ROWS_SHAPES = 4, ROWS_MEMBERS = 24 };

struct rows_shape { /* a row that was read, and its members in their order */
  json_t *row;
  size_t count; /* 0: the row is not flat, and cannot be used again */
  const char *keys[ROWS_MEMBERS];
  size_t lengths[ROWS_MEMBERS];
  json_t *values[ROWS_MEMBERS]; /* strings and integers */
};

/* To be zeroed before the first line.  One thread. */
struct rows {
  struct rows_shape shapes[ROWS_SHAPES];
  unsigned last; /* the shape that was read last */
};

/* The value of a line: borrowed, and valid until the next line unless the caller takes a reference.  NULL:
 * the line is not JSON. */
json_t *rows_read(struct rows *rows, const char *text, size_t n);
void rows_finish(struct rows *rows);

#endif
