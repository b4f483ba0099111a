/* Each line is written by one write(), so that the lines of two threads do not mix. */
#include "base/log.h"

#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

static void write_all(int fd, const char *bytes, size_t n) {
  while (n) {
    ssize_t done = write(fd, bytes, n);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return; /* an error of the log has no place to be reported */
    bytes += done;
    n -= (size_t)done;
  }
}

void log_line(const struct log *log, const char *format, ...) {
  if (log->fd < 0) return;
  struct buf line = BUF_INIT;
  buf_printf(&line, "%s: ", log->prefix);
  va_list args;
  va_start(args, format);
  buf_vprintf(&line, format, args);
  va_end(args);
  buf_putc(&line, '\n');
  if (buf_ok(&line)) write_all(log->fd, line.data, line.len);
  buf_finish(&line);
}
