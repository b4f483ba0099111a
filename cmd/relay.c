#include "relay.h"

#include "base/buf.h"
#include "wire/json.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int relay_write(int fd, const char *bytes, size_t n) {
  while (n > 0) {
    ssize_t written = write(fd, bytes, n);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) { /* somebody else has made the file description non-blocking */
      poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
      continue;
    }
    if (written < 0) return errno;
    bytes += written;
    n -= (size_t)written;
  }
  return 0;
}

void relay_bytes(int fd, const char *bytes, size_t n) {
  int failed = relay_write(fd, bytes, n);
  if (failed == EPIPE) { /* also where the program ignores the signal */
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
  }
  if (!failed) return;
  fprintf(stderr, "%s: standard %s: %s\n", program_invocation_short_name,
          fd == STDOUT_FILENO ? "output" : "error", strerror(failed));
  exit(RELAY_FAILED);
}

void relay_output(bool is_stderr, const char *bytes, size_t n) {
  relay_bytes(is_stderr ? STDERR_FILENO : STDOUT_FILENO, bytes, n);
}

void relay_event(const json_t *event) {
  struct buf line = BUF_INIT;
  json_line(&line, event);
  relay_bytes(STDOUT_FILENO, line.data, line.len);
  buf_finish(&line);
}
