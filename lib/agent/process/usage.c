/* Invariant: what the kernel does not say, or says in another form, is -1, never 0. */
#include "agent/process/usage.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_SIZE = 1024 }; /* more than the part that is looked at */

/* Reads the beginning of a file, which counts in `u`; false: it cannot be read. */
static bool read_text(struct usage *u, const char *path, char out[TEXT_SIZE]) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, out, TEXT_SIZE - 1);
  if (fd >= 0) close(fd);
  if (n >= 0) out[n] = '\0';
  u->files++;
  return n >= 0;
}

static bool read_of_cgroup(struct usage *u, const char *directory, const char *name, char out[TEXT_SIZE]) {
  char path[4200];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return read_text(u, path, out);
}

static bool read_of_process(struct usage *u, int64_t pid, const char *name, char out[TEXT_SIZE]) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%" PRId64 "/%s", pid, name);
  return read_text(u, path, out);
}

/* --- processor time ------------------------------------------------------------------------------------- */

int64_t usage_in_cpu_stat(const char *text) {
  static const char key[] = "usage_usec ";
  int64_t us;
  if (strncmp(text, key, sizeof key - 1) != 0) return -1;
  return sscanf(text + sizeof key - 1, "%" SCNd64, &us) == 1 ? us / 1000 : -1;
}

/* The fields behind the name, which is in parentheses and may contain any character: state, 10 numbers, and
 * utime, stime, cutime and cstime.  See proc(5). */
int64_t usage_in_stat(const char *text, long ticks_per_second) {
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

static int64_t time_of(struct usage *u, const char *cgroup, int64_t os_pid) {
  char text[TEXT_SIZE];
  int64_t ms = cgroup && read_of_cgroup(u, cgroup, "cpu.stat", text) ? usage_in_cpu_stat(text) : -1;
  if (ms >= 0 || !os_pid) return ms;
  return read_of_process(u, os_pid, "stat", text) ? usage_in_stat(text, sysconf(_SC_CLK_TCK)) : -1;
}

/* --- memory --------------------------------------------------------------------------------------------- */

int64_t usage_in_statm(const char *text, long page_size) {
  int64_t pages;
  return sscanf(text, "%*d %" SCNd64, &pages) == 1 && page_size > 0 ? pages * page_size : -1;
}

static int64_t memory_of_process(struct usage *u, int64_t pid) {
  char text[TEXT_SIZE];
  return read_of_process(u, pid, "statm", text) ? usage_in_statm(text, sysconf(_SC_PAGESIZE)) : -1;
}

/* Adds up the processes that a text lists, a line each; one that has ended meanwhile has no memory. */
static int64_t memory_of_processes(struct usage *u, const char *list) {
  int64_t sum = 0, count = 0;
  for (const char *at = list; *at; at++) count += *at == '\n';
  if (count > USAGE_PROCESSES) return -1;
  for (char *next; *list && *list != '\n'; list = *next ? next + 1 : next) {
    int64_t one = memory_of_process(u, strtoll(list, &next, 10));
    sum += one > 0 ? one : 0;
  }
  return sum;
}

static int64_t memory_of(struct usage *u, const char *cgroup, int64_t os_pid) {
  char list[TEXT_SIZE];
  if (cgroup && read_of_cgroup(u, cgroup, "cgroup.procs", list)) return memory_of_processes(u, list);
  return os_pid ? memory_of_process(u, os_pid) : -1;
}

void usage_measure(const char *cgroup, int64_t os_pid, struct usage *out) {
  *out = (struct usage){0};
  out->run_ms = time_of(out, cgroup, os_pid);
  out->memory = memory_of(out, cgroup, os_pid);
}
