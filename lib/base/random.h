/* random: random bytes, and numbers.  Any thread. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Fills up to 256 bytes with what nobody can predict: for secrets.  0 or ERR_SYSTEM, with errno. */
int random_bytes(void *out, size_t n) MUST_CHECK;

/* A number other than 0 that is not the same twice, in this process or in another.  Not for secrets: where
 * the kernel gives no random bytes it is made of the clock. */
uint64_t random_number(void);

/* The next number of the sequence that the state stands in (xorshift64).  The state is not 0, as the number
 * is; who knows one number knows those that follow: for jitter, and for tests with a seed. */
static inline uint64_t random_next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

#endif
