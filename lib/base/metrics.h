/* metrics: the statistics of a program, in the text format of Prometheus (version 0.0.4).
 *
 * The owner of statistics keeps them in a struct, and declares beside it, in one table, which members of the
 * struct are metrics: a row has the name, the type, the unit and the sentence of a metric, and the member.
 * The owner fills in the struct and calls metrics_put; where there are several of a kind (links, schedulers),
 * once for each, with the value of the set's label.  A set that has no samples is declared all the same.
 *
 *   static const struct metric rows[] = {
 *       {METRIC(struct link_stats, queue), METRIC_GAUGE, METRIC_BYTES, "node_link_queue_bytes", "Data …"}};
 *   static const struct metric_set links = METRIC_SET("node", rows);
 *
 *   metrics_open(out, &links);
 *   metrics_put(out, "two@rane", &stats);
 *
 * The names follow Prometheus' rules, which tests/metrics-check checks: the unit is in the name (_bytes,
 * _seconds), and a counter ends with _total.  One owner, no locking. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

enum metric_type { METRIC_GAUGE, METRIC_COUNTER };
enum metric_unit { METRIC_COUNT, METRIC_BYTES, METRIC_NS /* in the struct; seconds in the text */ };

struct metric {
  size_t at,
      size; /* the member: an int, or an integer of 64 bits.  Negative: not known, so without a sample */
  enum metric_type type;
  enum metric_unit unit;
  const char *name, *help; /* help: one line */
};

/* The first two members of a row. */
#define METRIC(type, member) offsetof(type, member), sizeof(((type *)0)->member)

struct metric_set {
  const char *label; /* NULL: metrics_put is called once */
  const struct metric *rows;
  size_t count; /* at most METRICS_ROWS */
};

#define METRIC_SET(label, rows)                                                                              \
  { label, rows, sizeof(rows) / sizeof *(rows) }

enum { METRICS_ROWS = 16 };

/* The text that is being written.  Zeroed: empty. */
struct metrics {
  struct buf text;
  const struct metric_set *set;
  struct buf samples[METRICS_ROWS]; /* of the rows of `set` */
};

/* Begins a set, and ends the one before it. */
void metrics_open(struct metrics *m, const struct metric_set *set);

/* Adds a sample to each metric of the set; values is the struct of its rows.  The value of the label may have
 * any characters; it is NULL where the set has no label. */
void metrics_put(struct metrics *m, const char *label, const void *values);

/* metrics_open and metrics_put, for a set without a label. */
void metrics_put_set(struct metrics *m, const struct metric_set *set, const void *values);

/* The text, a heap string of *n bytes; NULL: memory ran out.  m is then empty. */
char *metrics_take(struct metrics *m, size_t *n);

#endif
