#include "base/random.h"

#include "tap.h"

#include <stdbool.h>
#include <string.h>

enum { MANY = 1000 };

/* Each byte of a block has another value in some block: none is left as it was. */
static void test_bytes(void) {
  unsigned char bytes[256] = {0}, changed[sizeof bytes] = {0};
  bool good = true;
  for (int i = 0; i < 20; i++) {
    good = good && !random_bytes(bytes, sizeof bytes);
    for (size_t k = 0; k < sizeof bytes; k++) changed[k] |= bytes[k];
  }
  ok(good && !memchr(changed, 0, sizeof changed), "all bytes are filled");
}

static void test_numbers(void) {
  uint64_t numbers[MANY];
  bool good = true;
  for (int i = 0; i < MANY; i++) {
    numbers[i] = random_number();
    good = good && numbers[i];
    for (int k = 0; k < i; k++) good = good && numbers[k] != numbers[i];
  }
  ok(good, "numbers differ, and none is 0");
}

static void test_sequence(void) {
  uint64_t one = 1, same = 1, other = 2;
  bool good = true, differs = false;
  ok(random_next(&one) == 0x40822041, "the first number behind 1");
  random_next(&same);
  for (int i = 0; i < MANY; i++) {
    uint64_t number = random_next(&one);
    good = good && number && number == random_next(&same);
    differs |= number != random_next(&other);
  }
  ok(good, "a seed gives one sequence, without 0");
  ok(differs, "and another seed another one");
}

int main(void) {
  test_bytes();
  test_numbers();
  test_sequence();
  return tap_end();
}
