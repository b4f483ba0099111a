/* vm_bench FILE [SCALE]: runs the programs of a Lua file one after the other, each in a vm of its own, until
 * one prints nothing.  The globals WHICH (1, 2, …) and SCALE tell the file which program to run, and how
 * large. */
#include "../unit/vm_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_MAX ((size_t)4 << 30)

static char *read_file(const char *path) {
  struct buf text = BUF_INIT;
  char part[4096];
  FILE *f = fopen(path, "r");
  if (!f) return NULL;
  for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) buf_append(&text, part, n);
  fclose(f);
  return buf_take(&text);
}

/* False when the program has printed nothing. */
static bool run(const char *source, int which, long scale) {
  struct host *h = host_new(0, HEAP_MAX, NULL);
  struct buf code = BUF_INIT;
  buf_printf(&code, "WHICH, SCALE = %d, %ld %s", which, scale, source);
  char *chunk = buf_take(&code), *out = host_run(h, chunk), *errors = host_errors(h);
  bool said = *out != '\0';
  fputs(out, stdout);
  fputs(errors, stderr);
  fflush(stdout);
  free(chunk);
  free(out);
  free(errors);
  host_free(h);
  return said;
}

int main(int argc, char **argv) {
  char *source = argc > 1 ? read_file(argv[1]) : NULL;
  long scale = argc > 2 ? strtol(argv[2], NULL, 10) : 1;
  if (!source || scale < 1) {
    fputs("usage: vm_bench FILE [SCALE]\n", stderr);
    return 2;
  }
  for (int which = 1; run(source, which, scale);) which++;
  free(source);
  return 0;
}
