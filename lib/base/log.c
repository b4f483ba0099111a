/* Invariant: a line has exactly one newline, at its end, and no control character. */
#include "base/log.h"

#include "base/buf.h"
#include "base/text.h"

#include <stdarg.h>

void log_line(const struct log *log, const char *format, ...) {
  if (!log->sink) return;
  struct buf text = BUF_INIT;
  char line[LOG_LINE_MAX];
  buf_printf(&text, "%s: ", log->prefix);
  va_list args;
  va_start(args, format);
  buf_vprintf(&text, format, args);
  va_end(args);
  if (buf_ok(&text)) {
    size_t n = text_escape(line, sizeof line, text.data, text.len);
    line[n++] = '\n'; /* in the place of the NUL */
    sink_put(log->sink, SINK_LOG, line, n);
  }
  buf_finish(&text);
}

static bool is_over(const struct log_limit *l, int64_t now_ms) {
  return now_ms - l->begun_ms >= LOG_BURST_MS;
}

bool log_admits(struct log_limit *l, int64_t now_ms) {
  if (!l->lines || (is_over(l, now_ms) && !l->left_out)) *l = (struct log_limit){.begun_ms = now_ms};
  bool good = l->lines < LOG_BURST;
  if (good)
    l->lines++;
  else
    l->left_out++;
  return good;
}

unsigned log_left_out(struct log_limit *l, int64_t now_ms) {
  unsigned n = l->left_out;
  if (!n || !is_over(l, now_ms)) return 0;
  *l = (struct log_limit){0};
  return n;
}
