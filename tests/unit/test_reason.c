/* Reasons and the exit statuses that they stand for. */
#include "core/reason.h"

#include "tap.h"

static int status_of(struct term *reason) {
  int status = reason_status(reason);
  term_unref(reason);
  return status;
}

static void test_words(void) {
  static const struct {
    const char *word;
    int status;
  } rows[] = {{"normal", 0},    {"shutdown", 143},     {"kill", 137}, {"killed", 137},
              {"timeout", 124}, {"noconnection", 125}, {"noproc", 1}, {"", 1}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    ok(status_of(reason_word(rows[i].word)) == rows[i].status, "\"%s\" is %d", rows[i].word, rows[i].status);
}

static void test_commands(void) {
  for (int n = 1; n < 256; n++)
    if (status_of(reason_exit(n, 0)) != n) ok(false, "{\"exit\", %d} is %d", n, n);
  for (int n = 1; n < 65; n++)
    if (status_of(reason_exit(0, n)) != 128 + n) ok(false, "{\"signal\", %d} is %d", n, 128 + n);
  ok(status_of(reason_exit(255, 0)) == 255, "each exit status is itself");
  ok(status_of(reason_exit(0, 15)) == 143, "each signal is 128 more");
  struct term *t = reason_exit(0, 0);
  ok(term_is_word(t, "normal"), "status 0 is \"normal\"");
  term_unref(t);
  t = reason_exit(7, 9);
  ok(status_of(t) == 137, "the signal counts where there are both");
}

static void test_others(void) {
  struct term_writer w = TERM_WRITER_INIT;
  ok(reason_status(NULL) == 1, "no reason is 1");
  ok(status_of(term_build("i", (int64_t)7)) == 1, "a number that a process gave is 1");
  size_t at = term_open(&w, TERM_LIST);
  term_put_text(&w, "exit");
  term_set_count(&w, at, 1);
  ok(status_of(term_from_writer(&w, 1)) == 1, "{\"exit\"} without a status is 1");
  term_writer_finish(&w);
}

int main(void) {
  test_words();
  test_commands();
  test_others();
  return tap_end();
}
