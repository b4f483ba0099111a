#include "base/text.h"

#include "tap.h"

static void test_integer(void) {
  const struct {
    const char *text;
    bool good;
    int64_t value;
  } cases[] = {
      {"0", true, 0},     {"65535", true, 65535},
      {"-5", true, -5},   {"65536", false, 0},
      {"-6", false, 0},   {"", false, 0},
      {"-", false, 0},    {"+1", false, 0},
      {" 1", false, 0},   {"1 ", false, 0},
      {"0x10", false, 0}, {"1e3", false, 0},
      {"--1", false, 0},  {"99999999999999999999", false, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t v = 77;
    bool good = text_integer(cases[i].text, -5, 65535, &v);
    ok(good == cases[i].good && v == (good ? cases[i].value : 77), "integer \"%s\"", cases[i].text);
  }
  int64_t v;
  ok(text_integer("-9223372036854775808", INT64_MIN, INT64_MAX, &v) && v == INT64_MIN,
     "the least 64-bit integer");
}

static void test_utf8(void) {
  const char *good[] = {"",
                        "plain",
                        "gr\xC3\xBC\xC3\x9F",
                        "\xE2\x82\xAC",
                        "\xF0\x9F\x90\x98",
                        "\xF4\x8F\xBF\xBF",
                        "\xED\x9F\xBF",
                        "\xEE\x80\x80"};
  const char *bad[] = {"\x80",
                       "\xC3",
                       "\xC0\x80",
                       "\xC1\xBF",
                       "\xE0\x80\x80",
                       "\xED\xA0\x80",
                       "\xF0\x80\x80\x80",
                       "\xF4\x90\x80\x80",
                       "\xF5\x80\x80\x80",
                       "\xFF",
                       "\xE2\x82",
                       "a\xC3(",
                       "\xE2(\xA1"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    ok(text_utf8(good[i], strlen(good[i])), "UTF-8 %zu", i);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    ok(!text_utf8(bad[i], strlen(bad[i])), "not UTF-8 %zu", i);
  ok(text_utf8("a\0b", 3), "NUL is UTF-8");
}

static size_t slow_plain(const char *s, size_t n) {
  size_t i = 0;
  while (i < n && (unsigned char)s[i] >= ' ' && (unsigned char)s[i] < 0x80 && s[i] != '"' && s[i] != '\\')
    i++;
  return i;
}

/* Each byte at each place of texts of many lengths, which begin at each place of a word. */
static void test_plain(void) {
  static const size_t lengths[] = {0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 71, 255, 256, 257, 300, 320};
  char text[400];
  int wrong = 0;
  for (int byte = 0; byte < 256; byte += byte >= '#' && byte < 'Z' ? 8 : 1)
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
      for (size_t at = 0; at <= lengths[k]; at++) {
        size_t start = at % 9;
        memset(text, 'a' + (int)at % 26, sizeof text);
        text[start + at] = (char)byte;
        wrong += text_plain(text + start, lengths[k]) != slow_plain(text + start, lengths[k]);
      }
  ok(!wrong, "plain bytes are counted as one by one (%d differ)", wrong);
}

static void test_escape(void) {
  static const struct {
    const char *given, *shown;
  } cases[] = {{"plain text, \"quoted\" \\ and ünï cødé €", "plain text, \"quoted\" \\ and ünï cødé €"},
               {"\033[2J\033]0;title\a", "\\x1B[2J\\x1B]0;title\\x07"},
               {"two\nlines\r\tand a tab\x7F", "two\\nlines\\r\\tand a tab\\x7F"},
               {"\xC2\x9B"
                "31m",
                "\\u009B31m"},
               {"\xFF\xC3(\xE2\x82", "\\xFF\\xC3(\\xE2\\x82"},
               {"a\xE2\x80\xAE"
                "b\xE2\x80\xA8",
                "a\\u202Eb\\u2028"},
               {"", ""}};
  char out[128], again[128];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t n = text_escape(out, sizeof out, cases[i].given, strlen(cases[i].given));
    is(out, cases[i].shown, "shown: %s", cases[i].shown);
    text_escape(again, sizeof again, out, n);
    is(again, out, "and again the same");
    struct buf b = BUF_INIT;
    buf_escape(&b, cases[i].given, strlen(cases[i].given));
    is(b.data ? b.data : "", cases[i].shown, "into a buffer");
    buf_finish(&b);
  }
  text_escape(out, sizeof out, "a\0b", 3);
  is(out, "a\\x00b", "a NUL shows");
  char small[12];
  ok(text_escape(small, sizeof small, "12345678901", 11) == 11, "text that fits is whole");
  is(small, "12345678901", "to the last byte");
  text_escape(small, sizeof small, "123456789012", 12);
  is(small, "12345678...", "longer text is cut");
  text_escape(small, sizeof small, "1234567\n\n\n\n", 11);
  is(small, "1234567...", "between two characters");
  char megabyte[1 << 12];
  memset(megabyte, '\033', sizeof megabyte);
  ok(text_escape(small, sizeof small, megabyte, sizeof megabyte) < sizeof small, "long text fits, too");
}

static void test_near(void) {
  ok(text_near("twoo", "two") && text_near("tow", "two") && text_near("timeuot", "timeout") &&
         text_near("wathc", "watch") && text_near("same", "same") && text_near("TWO", "two"),
     "slips are near");
  ok(!text_near("a", "bc") && !text_near("one", "two") && !text_near("", "a") && !text_near("timeout", "tag"),
     "other words are not");
  char longest[65];
  memset(longest, 'a', 64);
  longest[64] = 0;
  ok(!text_near(longest, longest), "64 bytes are not compared");
  longest[63] = 0;
  ok(text_near(longest, longest), "63 are");
}

static void test_hex(void) {
  char out[9] = "xxxxxxxx";
  text_hex(out, "\x00\x9f\xa0\xff", 4);
  is(out, "009fa0ff", "bytes as hexadecimal digits");
  text_hex(out, "", 0);
  is(out, "", "and none as none");
}

int main(void) {
  test_near();
  test_integer();
  test_utf8();
  test_plain();
  test_escape();
  test_hex();
  return tap_end();
}
