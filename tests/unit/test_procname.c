#include "core/procname.h"

#include "tap.h"

static void test_check(void) {
  const char *good[] = {"ticker", "a", "gr\xC3\xBC\xC3\x9F", "x@y", "a.b", "1.2", "$x", "two@rane", "a:b",
                        "\"",     "1"};
  const char *bad[] = {"",      "a b",     "a\tb",          "a\nb",  "a/b",  "<a",        "a>", "-a",
                       "1.2.3", "<0.1.2>", "two@rane.57.3", "a\x7F", "\xFF", "a\xC2\x85", ".",  ".."};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    ok(procname_check(good[i], NULL) == 0, "name \"%s\"", good[i]);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    ok(procname_check(bad[i], NULL) == ERR_BAD_NAME, "no name: case %zu", i);
  char text[300];
  memset(text, 'n', sizeof text), text[255] = 0;
  ok(procname_check(text, NULL) == 0, "255 bytes");
  text[255] = 'n', text[256] = 0;
  ok(procname_check(text, NULL) == ERR_BAD_NAME, "256 are too many");
}

int main(void) {
  test_check();
  return tap_end();
}
