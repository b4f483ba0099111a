#include "scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *scratch_new(void) {
  const char *parent = getenv("TMPDIR");
  char path[4096];
  snprintf(path, sizeof path, "%s/unit.XXXXXX", parent && *parent ? parent : "/tmp");
  if (!mkdtemp(path)) abort();
  return strdup(path);
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st, (void)type, (void)ftw;
  return remove(path);
}

void scratch_free(char *path) {
  nftw(path, drop, 8, FTW_DEPTH | FTW_PHYS);
  free(path);
}
