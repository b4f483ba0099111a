/* A set of cookies, and its text. */
#include "core/cookie.h"

#include "tap.h"

static struct cookies parse(const char *text) {
  struct cookies set = {.count = 0};
  struct error e = {0};
  ok(cookies_parse("text", text, strlen(text), &set, &e) == 0, "a set is read: %s", e.text);
  return set;
}

static void test_good(void) {
  struct cookies set = parse("monster\n");
  ok(set.count == 1 && set.all[0].len == 7, "one cookie");
  is(set.all[0].bytes, "monster", "without its newline");
  set = parse("monster");
  ok(set.count == 1 && set.all[0].len == 7, "the newline may be missing");
  set = parse("new one\nold\tone\n");
  ok(set.count == 2, "two cookies");
  is(set.all[0].bytes, "new one", "the first");
  is(set.all[1].bytes, "old\tone", "the second");
  set = parse("\xff\x01\r\n");
  ok(set.count == 1 && set.all[0].len == 3, "bytes of any kind, but newlines and NULs");
}

static void test_bad(void) {
  static const struct {
    const char *text;
    size_t n;
    int code;
    const char *why;
  } cases[] = {
      {"", 0, ERR_COOKIE, "empty"},
      {"\n", 1, ERR_COOKIE, "empty"},
      {"\n\n", 2, ERR_COOKIE, "line 1, which should be a cookie, is empty"},
      {"a\n\n", 3, ERR_COOKIE, "line 2, which should be a cookie, is empty"},
      {"\na", 2, ERR_COOKIE, "line 1, which should be a cookie, is empty"},
      {"a\0b", 3, ERR_COOKIE, "NUL"},
      {"a\nb\0", 4, ERR_COOKIE, "NUL"},
      {"a\nb\nc\n", 6, ERR_COOKIE, "more than 2 cookies"},
      {"a\na\n", 4, ERR_COOKIE, "line 2 is the same cookie as line 1"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct cookies set = {.count = 99};
    struct error e = {0};
    int code = cookies_parse("text", cases[i].text, cases[i].n, &set, &e);
    ok(code == cases[i].code && set.count == 99 && strncmp(e.text, "text: ", 6) == 0 &&
           strstr(e.text, cases[i].why),
       "refused: %s", e.text);
  }
}

static void test_sizes(void) {
  char text[COOKIES_TEXT_MAX + 1], again[COOKIES_TEXT_MAX];
  struct cookies set;
  memset(text, 'c', sizeof text);
  text[COOKIE_MAX] = '\n';
  ok(cookies_parse("", text, COOKIE_MAX + 1, &set, NULL) == 0 && set.all[0].len == COOKIE_MAX,
     "the longest cookie");
  ok(cookies_parse("", text, COOKIES_TEXT_MAX, &set, NULL) == ERR_TOO_LARGE, "one byte more in the second");
  text[COOKIE_MAX + 1] = 'd';
  text[COOKIES_TEXT_MAX - 1] = '\n';
  ok(cookies_parse("", text, COOKIES_TEXT_MAX, &set, NULL) == 0 && set.all[1].len == COOKIE_MAX,
     "the longest set");
  ok(cookies_text(&set, again) == sizeof again && memcmp(text, again, sizeof again) == 0,
     "its text is what was read");
  ok(cookies_parse("", text, sizeof text, &set, NULL) == ERR_COOKIE, "a longer text is no set");
  text[COOKIE_MAX] = 'c';
  ok(cookies_parse("", text, COOKIE_MAX + 1, &set, NULL) == ERR_TOO_LARGE, "one byte more in the first");
}

static void test_changes(void) {
  struct cookies set = parse("one");
  struct cookie c;
  struct error e = {0};
  char text[COOKIES_TEXT_MAX];
  ok(cookie_make(&c, &e) == 0 && c.len == 64 && strspn(c.bytes, "0123456789abcdef") == 64,
     "a new cookie has 256 random bits in hex");
  ok(cookies_add(&set, &c) && set.count == 2 && cookie_equal(&set.all[1], &c), "is added behind the first");
  ok(!cookies_add(&set, &c) && set.count == 2, "and a third one is not");
  cookies_promote(&set, 0);
  is(set.all[0].bytes, "one", "the first may be promoted, and stays");
  cookies_promote(&set, 1);
  ok(cookie_equal(&set.all[0], &c) && strcmp(set.all[1].bytes, "one") == 0, "the second becomes the first");
  cookies_remove(&set, 1);
  ok(set.count == 1 && cookie_equal(&set.all[0], &c) && set.all[1].len == 0 && set.all[1].bytes[0] == 0,
     "the second is removed, and wiped");
  set = parse("one\ntwo");
  cookies_remove(&set, 0);
  ok(cookies_text(&set, text) == 4 && memcmp(text, "two\n", 4) == 0, "or the first");
  cookies_finish(&set);
  ok(set.count == 0 && set.all[0].bytes[0] == 0 && set.all[0].bytes[2] == 0, "finish wipes");
}

int main(void) {
  test_good();
  test_bad();
  test_sizes();
  test_changes();
  return tap_end();
}
