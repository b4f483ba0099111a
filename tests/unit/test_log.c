#include "base/log.h"

#include "tap.h"

#include <fcntl.h>
#include <unistd.h>

static const char *written(int fd, char *text, size_t size) {
  ssize_t n = read(fd, text, size - 1);
  text[n > 0 ? n : 0] = 0;
  return text;
}

int main(void) {
  char text[4096], page[2000];
  int ends[2];
  if (pipe2(ends, O_NONBLOCK)) return 1;
  struct log log = {.fd = ends[1], .prefix = "node-start"}, silent = {.fd = -1, .prefix = "node-start"};
  log_line(&log, "%s is up: %d", "two@rane", 7);
  is(written(ends[0], text, sizeof text), "node-start: two@rane is up: 7\n", "a line has prefix and newline");
  memset(page, 'x', sizeof page - 1);
  page[sizeof page - 1] = 0;
  log_line(&log, "%s", page);
  ok(strlen(written(ends[0], text, sizeof text)) == sizeof "node-start: \n" - 1 + sizeof page - 1,
     "a long line is whole");
  log_line(&silent, "nobody hears this");
  is(written(ends[0], text, sizeof text), "", "without a descriptor it is silent");
  return tap_end();
}
