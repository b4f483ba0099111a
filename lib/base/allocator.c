#include "base/allocator.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { DECAY_MS = 1000 };

/* What jemalloc reads as the program starts.  By default it returns a block of over 8 MB to the kernel as
 * soon as that is freed, so that long messages and lists would be made of pages that are all new. */
extern const char *const malloc_conf;
const char *const malloc_conf = "oversize_threshold:0";

/* jemalloc's control function (jemalloc(3)); NULL in a program without jemalloc. */
__attribute__((weak)) int mallctl(const char *name, void *old, size_t *old_size, void *fresh,
                                  size_t fresh_size);

static void set(const char *name, void *value, size_t size) {
  mallctl(name, NULL, NULL, value, size);
}

void allocator_start(void) {
  if (!mallctl) return;
  bool on = true;
  ssize_t decay = DECAY_MS;
  set("arenas.dirty_decay_ms", &decay, sizeof decay);
  set("arena.4096.dirty_decay_ms", &decay, sizeof decay); /* 4096: all arenas that exist */
  set("background_thread", &on, sizeof on);
}

static int64_t read_size(const char *name) {
  size_t value = 0, size = sizeof value;
  return mallctl(name, &value, &size, NULL, 0) ? 0 : (int64_t)value;
}

bool allocator_stats(struct allocator_stats *out) {
  if (!mallctl) return false;
  uint64_t epoch = 1;
  set("epoch", &epoch, sizeof epoch); /* the statistics are those of the moment of this call */
  *out = (struct allocator_stats){read_size("stats.allocated"), read_size("stats.resident")};
  return true;
}

void allocator_purge(void) {
  if (mallctl) mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
}

/* The number with this index in /proc/self/statm, in bytes. */
static int64_t statm(int index) {
  char text[128], *at = text;
  int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = '\0';
  while (index-- > 0) strtoll(at, &at, 10);
  return strtoll(at, NULL, 10) * sysconf(_SC_PAGESIZE);
}

int64_t allocator_rss(void) {
  return statm(1);
}

int64_t allocator_files(void) {
  return statm(2);
}

/* The first number in a file, or `otherwise` when there is none. */
static int64_t number_in(const char *path, int64_t otherwise) {
  long long n = 0;
  FILE *f = fopen(path, "re");
  if (!f) return otherwise;
  bool found = fscanf(f, "%lld", &n) == 1;
  fclose(f);
  return found ? n : otherwise;
}

/* The path of the process in the unified hierarchy of control groups (cgroups(7)); false: it has none. */
static bool group_path(char *out, size_t size) {
  char line[4096];
  bool found = false;
  FILE *f = fopen("/proc/self/cgroup", "re");
  while (f && !found && fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = '\0';
    found = strncmp(line, "0::", 3) == 0 && (size_t)snprintf(out, size, "%s", line + 3) < size;
  }
  if (f) fclose(f);
  return found;
}

/* The least memory.max of the process's group and those above it. */
static int64_t group_limit(int64_t least) {
  char group[4096], path[4224];
  if (!group_path(group, sizeof group)) return least;
  for (char *end = group + strlen(group); end >= group; *end = '\0') {
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
    int64_t limit = number_in(path, least);
    if (limit < least) least = limit;
    while (--end >= group && *end != '/') {
    }
    if (end < group) break;
  }
  return least;
}

int64_t allocator_machine(void) {
  int64_t pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || size <= 0) return 0;
  int64_t old = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", INT64_MAX), all = pages * size;
  return group_limit(old < all ? old : all);
}
