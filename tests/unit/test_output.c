/* The messages that carry what processes print. */
#include "core/output.h"

#include "tap.h"

static npid writer(void) {
  return npid_make(3, 57);
}

static void test_round_trip(void) {
  for (int err = 0; err < 2; err++) {
    struct output o = {.is_stderr = err, .from = writer(), .bytes = "a\0b", .n = 3}, back = {0};
    struct term *t = output_message(&o);
    ok(t && output_read(t, &back) && back.is_stderr == o.is_stderr && back.from == writer() && back.n == 3 &&
           !memcmp(back.bytes, "a\0b", 3),
       "%s comes back as it was", err ? "stderr" : "stdout");
    term_unref(t);
  }
}

static void test_others(void) {
  struct output out = {.n = 77};
  struct term *others[] = {NULL,
                           term_build("s", "stdout"),
                           term_build("sp", "stdout", writer()),
                           term_build("sss", "stdout", "x", "y"),
                           term_build("spi", "stdout", writer(), (int64_t)1),
                           term_build("sps", "stdou", writer(), "x"),
                           term_build("sps", "stdouts", writer(), "x"),
                           term_build("spss", "stdout", writer(), "x", "y"),
                           term_build("ips", (int64_t)1, writer(), "x")};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    ok(!output_read(others[i], &out) && out.n == 77, "message %zu is another one", i);
    term_unref(others[i]);
  }
}

int main(void) {
  test_round_trip();
  test_others();
  return tap_end();
}
