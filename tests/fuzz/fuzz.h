/* fuzz: a target is fuzz_NAME.c, which defines LLVMFuzzerTestOneInput for libFuzzer: it takes any bytes,
 * returns 0, and calls abort when it finds a fault.  tests/fuzz/NAME.corpus holds its inputs, one a line:
 * `make check` replays them, `make fuzz` begins with them. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#endif
