/* Invariant: a->log.sink and a->output are both there, possibly the same, from outputs_init until
 * outputs_finish. */
#include "agent/outputs.h"

#include "base/clock.h"
#include "base/metrics.h"

#include <sys/stat.h>
#include <unistd.h>

static int make_sink(const struct agent *a, int fd, const char *path, struct sink **out, struct error *e) {
  struct stat st;
  struct sink_config config = {.prefix = a->log.prefix,
                               .max = {[SINK_LOG] = (size_t)limit_max(&a->limits, LIMIT_LOG),
                                       [SINK_OUTPUT] = (size_t)limit_max(&a->limits, LIMIT_CONSOLE)},
                               .fd = fstat(fd, &st) ? -1 : fd,
                               .path = path,
                               .file_max = a->config->console_max};
  return sink_new(&config, out, e);
}

/* True when two descriptors are of the same terminal, pipe or file. */
static bool is_same(int one, int two) {
  struct stat a, b;
  return !fstat(one, &a) && !fstat(two, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int outputs_init(struct agent *a, struct error *e) {
  int code = make_sink(a, STDERR_FILENO, NULL, &a->log.sink, e);
  if (code) return code;
  a->output = a->log.sink;
  if (is_same(STDOUT_FILENO, STDERR_FILENO) || a->config->console_file) return 0;
  code = make_sink(a, STDOUT_FILENO, NULL, &a->output, e);
  if (code) a->output = a->log.sink;
  return code;
}

int outputs_open_file(struct agent *a, struct error *e) {
  return a->config->console_file ? make_sink(a, -1, a->config->console_file, &a->output, e) : 0;
}

void outputs_detach(struct agent *a) {
  if (!sink_path(a->output)) return;
  struct sink *terminal = a->log.sink;
  a->log.sink = a->output;
  sink_free(terminal, OUTPUT_LAST_MS);
  sink_take_standard(a->output);
}

static void add_sink(struct sink_stats *sum, struct sink *s) {
  struct sink_stats one;
  sink_stats(s, &one);
  for (int k = 0; k < SINK_KINDS; k++) sum->waiting[k] += one.waiting[k];
  sum->lost_lines += one.lost_lines;
  sum->lost_bytes += one.lost_bytes;
}

struct sink_stats outputs_stats(const struct agent *a) {
  struct sink_stats sum = {0};
  add_sink(&sum, a->output);
  if (a->log.sink != a->output) add_sink(&sum, a->log.sink);
  return sum;
}

void outputs_metrics(const struct agent *a, struct metrics *out) {
  static const struct metric rows[] = {
      {METRIC(struct sink_stats, waiting[SINK_LOG]), METRIC_GAUGE, METRIC_BYTES, "node_log_waiting_bytes",
       "Log lines that are not yet written."},
      {METRIC(struct sink_stats, lost_lines), METRIC_COUNTER, METRIC_COUNT, "node_log_lost_lines_total",
       "Log lines that were lost: too many waited, or writing failed."},
      {METRIC(struct sink_stats, waiting[SINK_OUTPUT]), METRIC_GAUGE, METRIC_BYTES,
       "node_console_waiting_bytes", "Console output that is not yet written."},
      {METRIC(struct sink_stats, lost_bytes), METRIC_COUNTER, METRIC_BYTES, "node_console_lost_bytes_total",
       "Console output that was lost: too much waited, or writing failed."}};
  static const struct metric_set set = METRIC_SET(NULL, rows);
  struct sink_stats stats = outputs_stats(a);
  metrics_put_set(out, &set, &stats);
}

static bool is_settled(struct sink *s, int64_t since_ns) {
  struct sink_stats now;
  sink_stats(s, &now);
  if (!now.waiting[SINK_LOG] && !now.waiting[SINK_OUTPUT]) return true;
  if (now.progress_ns > since_ns) since_ns = now.progress_ns;
  return clock_ns() - since_ns >= OUTPUT_LAST_MS * INT64_C(1000000);
}

bool outputs_settled(const struct agent *a, int64_t since_ns) {
  return is_settled(a->output, since_ns) && is_settled(a->log.sink, since_ns);
}

void outputs_finish(struct agent *a) {
  struct sink *output = a->output, *log = a->log.sink;
  if (!log) return;
  a->output = a->log.sink = NULL;
  sink_free(log, OUTPUT_LAST_MS);
  if (output != log) sink_free(output, OUTPUT_LAST_MS);
}
