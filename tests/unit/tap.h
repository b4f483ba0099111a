/* tap: prints the results of a unit test in the Test Anything Protocol: `ok` for each claim, `return
 * tap_end();` at the end of main.  Main thread only. */
#ifndef TESTS_UNIT_TAP_H
#define TESTS_UNIT_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static struct { int run, failed; } tap;

__attribute__((format(printf, 4, 5))) static inline bool tap_ok(bool good, const char *file, int line,
                                                                const char *format, ...) {
  printf("%sok %d - ", good ? "" : "not ", ++tap.run);
  va_list args;
  va_start(args, format);
  vprintf(format, args);
  va_end(args);
  printf("\n");
  if (!good) printf("# %s:%d\n", file, line), tap.failed++;
  fflush(stdout);
  return good;
}

#define ok(good, ...) tap_ok((good), __FILE__, __LINE__, __VA_ARGS__)

/* Equal texts; a failure shows both. */
#define is(got, want, ...)                                                                                   \
  do {                                                                                                       \
    const char *got_ = (got), *want_ = (want);                                                               \
    if (!tap_ok(got_ && strcmp(got_, want_) == 0, __FILE__, __LINE__, __VA_ARGS__))                          \
      printf("#  got: %s\n# want: %s\n", got_ ? got_ : "(null)", want_);                                     \
  } while (0)

static inline int tap_end(void) {
  printf("1..%d\n", tap.run);
  return tap.failed != 0;
}

#endif
