#include "base/buf.h"

#include "tap.h"

#include <stdlib.h>

static void test_growth(void) {
  struct buf b = BUF_INIT;
  for (int i = 0; i < 1000; i++) buf_putc(&b, (char)('a' + i % 26));
  ok(buf_ok(&b) && b.len == 1000 && b.data[1000] == 0 && b.data[999] == 'a' + 999 % 26, "grows byte by byte");
  buf_consume(&b, 990);
  is(b.data, "cdefghijkl", "consumes from the front");
  buf_clear(&b);
  ok(b.len == 0 && b.data[0] == 0, "clears");
  buf_finish(&b);
}

static void test_printf(void) {
  struct buf b = BUF_INIT;
  buf_puts(&b, "x");
  buf_printf(&b, "%063d", 7); /* one byte too long for the first allocation of 64 */
  ok(b.len == 64 && b.data[63] == '7' && b.data[64] == 0, "printf grows at the edge");
  buf_printf(&b, "%s", "");
  ok(b.len == 64, "printf of nothing");
  buf_finish(&b);
}

static void test_number(void) {
  static const int64_t numbers[] = {0, 7, -7, 10, 1234567890123456789, INT64_MAX, INT64_MIN};
  struct buf b = BUF_INIT;
  char wanted[32];
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    buf_clear(&b);
    buf_number(&b, numbers[i], 1);
    snprintf(wanted, sizeof wanted, "%lld", (long long)numbers[i]);
    is(b.data, wanted, "the number %s", wanted);
  }
  buf_clear(&b);
  buf_number(&b, 42, 9);
  is(b.data, "000000042", "with at least nine digits");
  buf_finish(&b);
}

static void test_take(void) {
  struct buf b = BUF_INIT;
  char *text = buf_take(&b);
  is(text, "", "buf_take of an empty buffer is an empty text");
  free(text);
  buf_append(&b, "a\0b", 3);
  text = buf_take(&b);
  ok(memcmp(text, "a\0b", 4) == 0 && !b.data && !b.len,
     "buf_take returns the bytes and leaves the buffer empty");
  free(text);
}

static void test_failure(void) {
  struct buf b = BUF_INIT;
  buf_puts(&b, "kept");
  ok(!buf_reserve(&b, SIZE_MAX - 64), "a size that no machine has is refused");
  buf_puts(&b, " not");
  ok(!buf_ok(&b) && strcmp(b.data, "kept") == 0, "a failed buffer ignores appends");
  ok(buf_take(&b) == NULL && buf_ok(&b), "buf_take of a failed buffer is NULL");
}

int main(void) {
  test_growth();
  test_printf();
  test_number();
  test_take();
  test_failure();
  return tap_end();
}
