/* Runs a target on each line of its corpus, and on each prefix of the line, since readers fail most often
 * where input breaks off. */
#include "fuzz.h"

#include "../unit/tap.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Runs the target on a copy of exactly n bytes, so that a sanitizer notices a read of one byte too many. */
static void give(const char *bytes, size_t n) {
  uint8_t *copy = malloc(n ? n : 1);
  if (!copy) abort();
  memcpy(copy, bytes, n);
  LLVMFuzzerTestOneInput(copy, n);
  free(copy);
}

int main(int argc, char **argv) {
  (void)argc;
  char path[256], *line = NULL;
  size_t cap = 0, inputs = 0;
  snprintf(path, sizeof path, "tests/fuzz/%s.corpus", basename(argv[0]) + strlen("fuzz_"));
  FILE *f = fopen(path, "r");
  for (ssize_t n; f && (n = getline(&line, &cap, f)) > 0; inputs++)
    for (size_t i = 0; i < (size_t)n; i++) give(line, i);
  if (f) fclose(f);
  free(line);
  ok(inputs > 0, "%zu inputs of %s, and all their beginnings", inputs, path);
  return tap_end();
}
