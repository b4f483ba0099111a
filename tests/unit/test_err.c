#include "base/err.h"

#include "tap.h"

static void test_table(void) {
  is(err_wire(ERR_COOKIE), "cookie", "wire name");
  ok(err_http(ERR_COOKIE) == 403 && err_exit(ERR_COOKIE) == 4, "HTTP and exit status");
  is(err_wire(0), "system", "0 is no code: it counts as ERR_SYSTEM");
  is(err_wire(-999), "system", "so does a code beyond the table");
  int good = 0;
  for (int code = -1; code >= -ERR_COUNT; code--) good += err_from_wire(err_wire(code)) == code;
  ok(good == ERR_COUNT, "err_from_wire undoes err_wire");
  ok(err_from_wire("nonsense") == ERR_SYSTEM, "an unknown wire name is system");
}

static void test_error(void) {
  struct error e = {0};
  ok(error_set(&e, ERR_TCP, "%s: refused", "two") == ERR_TCP && e.code == ERR_TCP,
     "error_set returns the code");
  is(error_text(&e), "two: refused", "and keeps the text");
  error_set(&e, ERR_TCP, "again: %s", e.text);
  is(e.text, "again: two: refused", "an argument may be the old text");
  error_set(&e, ERR_TCP, "%0600d", 1);
  ok(strlen(e.text) == sizeof e.text - 1, "a long text is cut");
  ok(!strcmp(e.text + sizeof e.text - 5, "0..."), "and says so");
  error_set(&e, ERR_TCP, "two: %s", "\033[31mred\nline");
  is(e.text, "two: \\x1B[31mred\\nline", "control characters are escaped");
  e = (struct error){.code = ERR_NO_NAME};
  is(error_text(&e), "no process has this name", "without a text: the sentence of the code");
  ok(error_set(NULL, ERR_NOMEM, "x") == ERR_NOMEM, "e may be NULL");
}

int main(void) {
  test_table();
  test_error();
  return tap_end();
}
