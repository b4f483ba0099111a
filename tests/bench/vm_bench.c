/* vm_bench FILE [SCALE [WHICH]]: runs the programs of a Lua file one after the other, each in a vm of its
 * own, until one prints nothing; or one of them.  The globals WHICH (1, 2, …) and SCALE tell the file which
 * program to run, and how large.  Modules come from $NODE_LIB, else from share/node. */
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
  char path[4096] = "";
  const char *modules = getenv("NODE_LIB");
  snprintf(path, sizeof path - 1, "%s", modules ? modules : "share/node");
  struct host *h = host_new(0, HEAP_MAX, path);
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
  int which = argc > 3 ? atoi(argv[3]) : 0;
  if (!source || scale < 1) {
    fputs("usage: vm_bench FILE [SCALE [WHICH]]\n", stderr);
    return 2;
  }
  if (which) {
    run(source, which, scale);
  } else {
    for (which = 1; run(source, which, scale);) which++;
  }
  free(source);
  return 0;
}
