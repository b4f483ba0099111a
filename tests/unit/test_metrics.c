/* Metrics: the text of samples, of sets, and of values that are not known. */
#include "base/metrics.h"

#include "tap.h"

#include <stdlib.h>

struct stats {
  int64_t bytes, time;
  int count;
  char unused[3];
  size_t total;
};

static const struct metric rows[] = {
    {METRIC(struct stats, bytes), METRIC_GAUGE, METRIC_BYTES, "node_a_bytes", "Bytes."},
    {METRIC(struct stats, time), METRIC_GAUGE, METRIC_NS, "node_b_seconds", "Time."},
    {METRIC(struct stats, count), METRIC_GAUGE, METRIC_COUNT, "node_c", "Ints."},
    {METRIC(struct stats, total), METRIC_COUNTER, METRIC_COUNT, "node_d_total", "Sizes."}};
static const struct metric_set single = METRIC_SET(NULL, rows), labelled = METRIC_SET("name", rows);

#define HEAD(name, type, help) "# HELP " name " " help "\n# TYPE " name " " type "\n"

static void text_is(struct metrics *m, const char *want, const char *what) {
  size_t n = 0;
  char *text = metrics_take(m, &n);
  is(text, want, "%s", what);
  ok(text && n == strlen(text), "and its length");
  free(text);
}

/* clang-format off */
static void test_values(void) {
  struct metrics m = {0};
  struct stats s = {.bytes = INT64_MAX, .time = 1000000001, .count = 7, .total = 1};
  metrics_put_set(&m, &single, &s);
  text_is(&m,
          HEAD("node_a_bytes", "gauge", "Bytes.") "node_a_bytes 9223372036854775807\n"
          HEAD("node_b_seconds", "gauge", "Time.") "node_b_seconds 1.000000001\n"
          HEAD("node_c", "gauge", "Ints.") "node_c 7\n"
          HEAD("node_d_total", "counter", "Sizes.") "node_d_total 1\n",
          "each member has its metric, in its unit");
  s = (struct stats){.bytes = 0, .time = 999999999, .count = -1, .total = 0};
  metrics_put_set(&m, &single, &s);
  text_is(&m,
          HEAD("node_a_bytes", "gauge", "Bytes.") "node_a_bytes 0\n"
          HEAD("node_b_seconds", "gauge", "Time.") "node_b_seconds 0.999999999\n"
          HEAD("node_c", "gauge", "Ints.")
          HEAD("node_d_total", "counter", "Sizes.") "node_d_total 0\n",
          "a value that is not known has no sample");
}

static void test_labels(void) {
  static const struct metric one[] = {
      {METRIC(struct stats, count), METRIC_GAUGE, METRIC_COUNT, "node_c", "Ints."}};
  static const struct metric_set set = METRIC_SET("name", one);
  struct metrics m = {0};
  struct stats s = {.count = 1};
  const char *const labels[] = {"", "plain", "a\"b\\c\nd", "\\", "\"\n", "\xc3\xa9 { } ="};
  metrics_open(&m, &set);
  for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) metrics_put(&m, labels[i], &s);
  text_is(&m,
          HEAD("node_c", "gauge", "Ints.")
          "node_c{name=\"\"} 1\nnode_c{name=\"plain\"} 1\nnode_c{name=\"a\\\"b\\\\c\\nd\"} 1\n"
          "node_c{name=\"\\\\\"} 1\nnode_c{name=\"\\\"\\n\"} 1\nnode_c{name=\"\xc3\xa9 { } =\"} 1\n",
          "the values of labels are escaped");
}

static void test_sets(void) {
  static const struct metric first[] = {
      {0, sizeof(int64_t), METRIC_COUNTER, METRIC_NS, "node_e_seconds_total", "E."}};
  static const struct metric_set other = METRIC_SET("kind", first);
  struct metrics m = {0};
  struct stats s = {.bytes = 1, .time = 2, .count = 3, .total = 4}, t = {.bytes = 5, .time = -1, .count = 6};
  metrics_open(&m, &other);
  metrics_open(&m, &labelled);
  metrics_put(&m, "x", &s);
  metrics_put(&m, "y", &t);
  text_is(&m,
          HEAD("node_e_seconds_total", "counter", "E.")
          HEAD("node_a_bytes", "gauge", "Bytes.") "node_a_bytes{name=\"x\"} 1\nnode_a_bytes{name=\"y\"} 5\n"
          HEAD("node_b_seconds", "gauge", "Time.") "node_b_seconds{name=\"x\"} 0.000000002\n"
          HEAD("node_c", "gauge", "Ints.") "node_c{name=\"x\"} 3\nnode_c{name=\"y\"} 6\n"
          HEAD("node_d_total", "counter", "Sizes.")
          "node_d_total{name=\"x\"} 4\nnode_d_total{name=\"y\"} 0\n",
          "the samples of a metric are together, and a set without samples is declared");
  text_is(&m, "", "nothing is left");
}
/* clang-format on */

int main(void) {
  test_values();
  test_labels();
  test_sets();
  return tap_end();
}
