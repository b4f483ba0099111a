#include "base/random.h"

#include "base/clock.h"

#include <sys/random.h>

int random_bytes(void *out, size_t n) {
  return getrandom(out, n, 0) == (ssize_t)n ? 0 : ERR_SYSTEM;
}

uint64_t random_number(void) {
  uint64_t number = 0;
  if (random_bytes(&number, sizeof number) || !number) number = (uint64_t)clock_ns();
  return number;
}
