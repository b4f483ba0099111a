/* Invariant: what the kernel does not say, or says in another form, is -1, never 0. */
#include "agent/process/cputime.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_SIZE = 1024 }; /* more than the part that is looked at */

/* Reads the beginning of a file; false: it cannot be read. */
static bool read_text(const char *path, char out[TEXT_SIZE]) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, out, TEXT_SIZE - 1);
  if (fd >= 0) close(fd);
  if (n >= 0) out[n] = '\0';
  return n >= 0;
}

int64_t cputime_in_cpu_stat(const char *text) {
  static const char key[] = "usage_usec ";
  int64_t us;
  if (strncmp(text, key, sizeof key - 1) != 0) return -1;
  return sscanf(text + sizeof key - 1, "%" SCNd64, &us) == 1 ? us / 1000 : -1;
}

/* The fields behind the name, which is in parentheses and may contain any character: state, 10 numbers, and
 * utime, stime, cutime and cstime.  See proc(5). */
int64_t cputime_in_stat(const char *text, long ticks_per_second) {
  enum { BEFORE = 11, FIELDS = 4 };
  const char *at = strrchr(text, ')');
  int64_t sum = 0;
  for (int i = 0; at && i <= BEFORE; i++) at = strchr(at + 1, ' ');
  for (int i = 0; at && i < FIELDS; i++) {
    char *end;
    sum += strtoll(at, &end, 10);
    at = end != at && *end == ' ' ? end : NULL;
  }
  return at && ticks_per_second > 0 ? sum * 1000 / ticks_per_second : -1;
}

int64_t cputime_of_cgroup(const char *directory) {
  char path[4200], text[TEXT_SIZE];
  snprintf(path, sizeof path, "%s/cpu.stat", directory);
  return read_text(path, text) ? cputime_in_cpu_stat(text) : -1;
}

int64_t cputime_of_process(int64_t pid) {
  char path[64], text[TEXT_SIZE];
  snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
  return read_text(path, text) ? cputime_in_stat(text, sysconf(_SC_CLK_TCK)) : -1;
}
