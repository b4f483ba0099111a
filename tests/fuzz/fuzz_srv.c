/* Reads answers of DNS servers: what is read of them are hosts and ports that a node can have, and it fits.
 */
#include "fuzz.h"

#include "core/nodename.h"
#include "wire/srv.h"

#include <stdlib.h>
#include <string.h>

static void check(const uint8_t *data, size_t n, size_t size) {
  struct nodename place;
  char *out = malloc(size), *save = out;
  if (!out) abort();
  int count = srv_read(data, n, out, size), words = 0;
  if (strnlen(out, size) == size) abort();
  for (char *word; *out && (word = strsep(&save, ",")); words++)
    if (nodename_place(word, &place) || !place.port) abort();
  if (words != count) abort();
  free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  check(data, n, 4096);
  check(data, n, 16);
  return 0;
}
