#include "wire/url.h"

#include "tap.h"

static void test_escape(void) {
  static const struct {
    const char *text, *escaped;
  } cases[] = {{"ticker", "ticker"},
               {"", ""},
               {"a b", "a%20b"},
               {"a/b", "a%2Fb"},
               {"100%", "100%25"},
               {"%2F", "%252F"},
               {"AZaz09-._~", "AZaz09-._~"},
               {"?#&=", "%3F%23%26%3D"},
               {"gr\xC3\xBC\xC3\x9F", "gr%C3%BC%C3%9F"},
               {"<0.57.3>", "%3C0.57.3%3E"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct buf there = BUF_INIT, back = BUF_INIT;
    url_escape(&there, cases[i].text);
    is(there.data, cases[i].escaped, "\"%s\" is escaped", cases[i].text);
    ok(url_unescape(&back, there.data, there.len) == 0 &&
           strcmp(back.data ? back.data : "", cases[i].text) == 0,
       "and back");
    buf_finish(&there), buf_finish(&back);
  }
  struct buf all = BUF_INIT, there = BUF_INIT, back = BUF_INIT;
  for (int c = 1; c < 256; c++) buf_putc(&all, (char)c);
  url_escape(&there, all.data);
  ok(url_unescape(&back, there.data, there.len) == 0 && strcmp(back.data, all.data) == 0,
     "each byte, there and back");
  buf_finish(&all), buf_finish(&there), buf_finish(&back);
}

static void test_unescape(void) {
  struct buf out = BUF_INIT;
  buf_puts(&out, "before ");
  ok(url_unescape(&out, "two@rane:%3c%3C+%41/rest", 16) == 0, "what a client may leave as it is");
  is(out.data, "before two@rane:<<+", "is appended as it is, up to the length given");
  static const char *const bad[] = {"%", "a%2", "%zz", "%2g", "%g2", "%00", "a%00.b", "%%41", "%-1", "% 1"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    size_t before = out.len;
    ok(url_unescape(&out, bad[i], strlen(bad[i])) == ERR_USAGE && out.len == before, "%s is refused", bad[i]);
  }
  ok(url_unescape(&out, "%41", 2) == ERR_USAGE, "an escape that ends beyond the segment");
  ok(url_unescape(&out, "a\0b", 3) == ERR_USAGE, "a NUL is no part of a segment");
  buf_finish(&out);
}

int main(void) {
  test_escape();
  test_unescape();
  return tap_end();
}
