#include "base/allocator.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

enum { DECAY_MS = 1000 };

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

int64_t allocator_rss(void) {
  char text[128];
  int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = '\0';
  char *second = NULL;
  strtoll(text, &second, 10);
  return strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE);
}
