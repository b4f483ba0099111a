/* The names of the signals of the operating system. */
#include "core/ossignal.h"
#include "tap.h"

#include <signal.h>

static void test_names(void) {
  ok(ossignal_number("HUP") == SIGHUP, "HUP");
  ok(ossignal_number("SIGHUP") == SIGHUP, "SIGHUP");
  ok(ossignal_number("sigterm") == SIGTERM, "small letters");
  ok(ossignal_number("9") == SIGKILL, "a number");
  ok(ossignal_number("64") == 64, "a real-time signal");
}

static void test_none(void) {
  static const char *const words[] = {"", "0", "-1", "65", "9x", "SIG", "SIGSIGHUP", "NOSUCH", " HUP"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    ok(ossignal_number(words[i]) == 0, "\"%s\" is no signal", words[i]);
  ok(!ossignal_name(0) && !ossignal_name(-1) && !ossignal_name(NSIG), "numbers without a name");
}

static void test_both_ways(void) {
  int named = 0;
  for (int i = 1; i < NSIG; i++)
    if (ossignal_name(i)) named += ossignal_number(ossignal_name(i)) == i;
  ok(named == 31, "each name means its number");
}

int main(void) {
  test_names();
  test_none();
  test_both_ways();
  return tap_end();
}
