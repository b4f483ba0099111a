/* fuzz: a target is fuzz_NAME.c, which defines LLVMFuzzerTestOneInput as libFuzzer wants it: any bytes may
 * come, and nothing but 0 goes back; what is wrong, it says by abort.  tests/fuzz/NAME.corpus holds its
 * inputs, one a line: `make check` replays them, `make fuzz` begins with them. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#endif
