/* Invariant: the text has whole sets; the samples of the set that is open wait in a buffer for each row,
 * because the format wants all samples of a metric together. */
#include "base/metrics.h"

#include <string.h>

static const char *const types[] = {[METRIC_GAUGE] = "gauge", [METRIC_COUNTER] = "counter"};

static void put_row(struct buf *text, const struct metric *row, struct buf *samples) {
  buf_printf(text, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name, types[row->type]);
  buf_append(text, samples->data, samples->len);
  text->failed |= samples->failed;
  buf_finish(samples);
}

static void close_set(struct metrics *m) {
  for (size_t i = 0; m->set && i < m->set->count; i++) put_row(&m->text, &m->set->rows[i], &m->samples[i]);
  m->set = NULL;
}

void metrics_open(struct metrics *m, const struct metric_set *set) {
  close_set(m);
  m->set = set;
}

/* The characters of a label's value that the format escapes. */
static void put_escaped(struct buf *out, const char *text) {
  for (size_t n; *text; text += n) {
    n = strcspn(text, "\\\"\n");
    buf_append(out, text, n);
    if (!text[n]) return;
    buf_putc(out, '\\');
    buf_putc(out, text[n] == '\n' ? 'n' : text[n]);
    n++;
  }
}

static int64_t read_value(const struct metric *row, const void *values) {
  int64_t wide;
  int narrow;
  const char *at = (const char *)values + row->at;
  if (row->size == sizeof wide) return memcpy(&wide, at, sizeof wide), wide;
  return memcpy(&narrow, at, sizeof narrow), narrow;
}

/* Not with printf: a node has some ten samples for each link, and writes them between two turns of its loop.
 */
static void put_value(struct buf *out, enum metric_unit unit, int64_t value) {
  enum { NS = 1000000000, NS_DIGITS = 9 };
  buf_number(out, unit == METRIC_NS ? value / NS : value, 1);
  if (unit != METRIC_NS) return;
  buf_putc(out, '.');
  buf_number(out, value % NS, NS_DIGITS);
}

void metrics_put(struct metrics *m, const char *label, const void *values) {
  for (size_t i = 0; i < m->set->count; i++) {
    const struct metric *row = &m->set->rows[i];
    struct buf *out = &m->samples[i];
    int64_t value = read_value(row, values);
    if (value < 0) continue;
    buf_puts(out, row->name);
    if (label) {
      buf_putc(out, '{');
      buf_puts(out, m->set->label);
      buf_puts(out, "=\"");
      put_escaped(out, label);
      buf_puts(out, "\"}");
    }
    buf_putc(out, ' ');
    put_value(out, row->unit, value);
    buf_putc(out, '\n');
  }
}

void metrics_put_set(struct metrics *m, const struct metric_set *set, const void *values) {
  metrics_open(m, set);
  metrics_put(m, NULL, values);
}

char *metrics_take(struct metrics *m, size_t *n) {
  close_set(m);
  *n = m->text.len;
  return buf_take(&m->text);
}
