#include "base/err.h"
#include "base/log.h"

#include "tap.h"

#include <unistd.h>

static void test_table(void) {
  is(err_wire(ERR_COOKIE), "cookie", "wire name");
  ok(err_http(ERR_COOKIE) == 403 && err_exit(ERR_COOKIE) == 4, "HTTP and exit status");
  is(err_wire(0), "system", "a code that is none reads as system");
  is(err_wire(-999), "system", "one beyond the table too");
  int good = 0;
  for (int code = -1; code >= -ERR_COUNT; code--) good += err_from_wire(err_wire(code)) == code;
  ok(good == ERR_COUNT, "every wire name leads back to its code");
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
  e = (struct error){.code = ERR_NO_NAME};
  is(error_text(&e), "no process has this name", "without text: the sentence");
  ok(error_set(NULL, ERR_NOMEM, "x") == ERR_NOMEM, "nobody need listen");
}

static void test_log(void) {
  int ends[2];
  char text[64] = "";
  if (!ok(pipe(ends) == 0, "a pipe")) return;
  log_line(&(struct log){.fd = ends[1], .prefix = "node-start"}, "%s is %d", "it", 7);
  log_line(&(struct log){.fd = -1, .prefix = "never"}, "seen");
  close(ends[1]);
  ok(read(ends[0], text, sizeof text - 1) > 0, "a line is written");
  is(text, "node-start: it is 7\n", "with its prefix, and the silent one not");
  close(ends[0]);
}

int main(void) {
  test_table();
  test_error();
  test_log();
  return tap_end();
}
