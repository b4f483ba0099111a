/* Log lines: whole, bounded, and harmless to a terminal. */
#include "base/log.h"

#include "tap.h"

#include <fcntl.h>
#include <unistd.h>

static const char *written(const struct log *log, int fd, char *text, size_t size) {
  if (log->sink) sink_flush(log->sink, 10000);
  ssize_t n = read(fd, text, size - 1);
  text[n > 0 ? n : 0] = 0;
  return text;
}

/* Of many lines about one thing few are logged, and it is said how many were not. */
static void test_limit(void) {
  struct log_limit l = {0};
  int admitted = 0;
  for (int i = 0; i < 3 * LOG_BURST; i++) admitted += log_admits(&l, 5 + i);
  ok(admitted == LOG_BURST, "%d of %d lines of one moment are admitted", admitted, 3 * LOG_BURST);
  ok(!log_left_out(&l, 5 + LOG_BURST_MS - 1), "how many are left out is told when the minute is over");
  ok(!log_admits(&l, 5 + LOG_BURST_MS), "before that no line is admitted");
  ok(log_left_out(&l, 5 + LOG_BURST_MS) == 2 * LOG_BURST + 1, "and all are counted");
  ok(!log_left_out(&l, 5 + 2 * LOG_BURST_MS), "once");
  ok(log_admits(&l, 5 + LOG_BURST_MS), "then lines are admitted again");
  admitted = 0;
  for (int i = 1; i < 5 * LOG_BURST; i++) admitted += log_admits(&l, 5 + (1 + i) * (int64_t)LOG_BURST_MS);
  ok(admitted == 5 * LOG_BURST - 1, "rare lines are all admitted");
}

int main(void) {
  test_limit();
  char text[8192], page[6000];
  int ends[2];
  struct error e;
  if (pipe2(ends, O_NONBLOCK)) return 1;
  struct sink_config config = {.prefix = "node-start", .max = {1 << 20}, .fd = ends[1]};
  struct log log = {.prefix = "node-start"}, silent = {.prefix = "node-start"};
  if (sink_new(&config, &log.sink, &e)) return 1;
  log_line(&log, "%s is up: %d", "two@rane", 7);
  is(written(&log, ends[0], text, sizeof text), "node-start: two@rane is up: 7\n",
     "a line has prefix and newline");
  log_line(&log, "%s is down: %s", "two@rane",
           "bye\nnode-start: all is well\x1b[2J\xff \xc2\x9b\xe2\x80\xae");
  is(written(&log, ends[0], text, sizeof text),
     "node-start: two@rane is down: bye\\nnode-start: all is well\\x1B[2J\\xFF \\u009B\\u202E\n",
     "what others say makes no lines and moves no cursor");
  memset(page, 'x', sizeof page - 1);
  page[sizeof page - 1] = 0;
  log_line(&log, "%s", page);
  written(&log, ends[0], text, sizeof text);
  ok(strlen(text) == LOG_LINE_MAX && strcmp(text + LOG_LINE_MAX - 5, "x...\n") == 0,
     "a line that is too long is cut");
  page[2000] = 0;
  log_line(&log, "%s", page);
  ok(strlen(written(&log, ends[0], text, sizeof text)) == sizeof "node-start: \n" - 1 + 2000,
     "a long line is whole");
  log_line(&silent, "nobody hears this");
  is(written(&silent, ends[0], text, sizeof text), "", "without a sink it is silent");
  sink_free(log.sink, 10000);
  return tap_end();
}
