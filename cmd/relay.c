#include "relay.h"

#include "base/buf.h"
#include "wire/json.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void relay_bytes(const struct tool *tool, int fd, const char *bytes, size_t n) {
  while (n > 0) {
    ssize_t written = write(fd, bytes, n);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) { /* also where the program ignores the signal */
      signal(SIGPIPE, SIG_DFL);
      raise(SIGPIPE);
    }
    if (written < 0) {
      fprintf(stderr, "%s: standard %s: %s\n", tool->name, fd == STDOUT_FILENO ? "output" : "error",
              strerror(errno));
      exit(RELAY_FAILED);
    }
    bytes += written;
    n -= (size_t)written;
  }
}

static void relay(const struct tool *tool, int fd, const json_t *output) {
  struct buf bytes = BUF_INIT;
  if (output && json_to_bytes(output, &bytes) == 0) relay_bytes(tool, fd, bytes.data, bytes.len);
  buf_finish(&bytes);
}

void relay_output(const struct tool *tool, const json_t *event) {
  relay(tool, STDOUT_FILENO, json_object_get(event, "stdout"));
  relay(tool, STDERR_FILENO, json_object_get(event, "stderr"));
}

void relay_event(const struct tool *tool, const json_t *event) {
  struct buf line = BUF_INIT;
  json_line(&line, event);
  relay_bytes(tool, STDOUT_FILENO, line.data, line.len);
  buf_finish(&line);
}
