/* Tags: words become one sorted text, and a text of another node is accepted only in that form. */
#include "core/tags.h"

#include "tap.h"

#include <stdio.h>
#include <string.h>

#define LONG_32 "abcdefghijklmnopqrstuvwxyz012345"
#define LONG_64 LONG_32 LONG_32

static void test_make(void) {
  const char *words[] = {"web", "role=db", "a.b/c-d_e", "zone=eu:1@x+y-z"};
  char text[TAGS_SIZE] = "";
  struct error e = {0};
  ok(!tags_make(words, 4, text, &e), "tags are made: %s", e.text);
  is(text, "a.b/c-d_e role=db web zone=eu:1@x+y-z", "sorted by key, a space between two");
  ok(!tags_check(text, &e), "what is made is accepted");
  const char *at = text;
  struct tag tag;
  int n = 0;
  while (tags_next(&at, &tag)) n++;
  ok(n == 4 && !strcmp(tag.key, "zone") && !strcmp(tag.value, "eu:1@x+y-z"), "four are visited");
  ok(!tags_make(words, 0, text, &e) && !*text && !tags_check("", &e), "no tags");
  const char *bare[] = {"web="};
  ok(!tags_make(bare, 1, text, &e) && !strcmp(text, "web"), "KEY= is KEY");
}

static void test_bounds(void) {
  const char *most[TAGS_MAX + 1];
  char names[TAGS_MAX + 1][8], text[TAGS_SIZE] = "before";
  struct error e = {0};
  for (int i = 0; i <= TAGS_MAX; i++) {
    snprintf(names[i], sizeof names[i], "k%d", i);
    most[i] = names[i];
  }
  ok(!tags_make(most, TAGS_MAX, text, &e) && !tags_check(text, &e), "the most tags");
  strcpy(text, "before");
  ok(tags_make(most, TAGS_MAX + 1, text, &e) == ERR_USAGE, "one more: %s", e.text);
  is(text, "before", "a failure leaves the text");
  const char *longest[] = {"a" LONG_32, LONG_32 "=" LONG_64, LONG_32 "=" LONG_64 "x"};
  ok(tags_make(longest, 1, text, &e) == ERR_USAGE, "%s", e.text);
  ok(!tags_make(longest + 1, 1, text, &e), "the longest key and value");
  ok(tags_make(longest + 2, 1, text, &e) == ERR_USAGE, "%s", e.text);
  const char *large[] = {"a=" LONG_64, "b=" LONG_64, "c=" LONG_64, "d=" LONG_64};
  ok(tags_make(large, 4, text, &e) == ERR_USAGE, "%s", e.text);
}

static void test_wrong(void) {
  static const char *const words[] = {"",      "=x",    "a b",    "-a",     ".a",    "a\n",   "a=b c",
                                      "a=b\n", "ü",     "a=\xff", "a\x1b[", "a=b=c", "a'",    "a=\"",
                                      "a,b",   "a=b,c", "a*",     "a=*",    "a:b",   "a\x7f", "a=\x1b[31m"};
  static const char *const texts[] = {"b a",  "a a", "a=1 a=2", " a",   "a ",
                                      "a  b", "a=",  "a= b",    "a\nb", "a b\x1b"};
  char out[TAGS_SIZE];
  struct error e = {0};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    ok(tags_make(&words[i], 1, out, &e) == ERR_USAGE, "word %zu: %s", i, e.text);
    ok(!strpbrk(e.text, "\n\x1b"), "the text of the error is escaped");
    ok(!*words[i] || strchr(words[i], ' ') || tags_check(words[i], &e) == ERR_USAGE,
       "the same from another node");
  }
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    ok(tags_check(texts[i], &e) == ERR_USAGE, "text %zu: %s", i, e.text);
  const char *twice[] = {"role=db", "web", "role=web"};
  ok(tags_make(twice, 3, out, &e) == ERR_USAGE, "%s", e.text);
}

int main(void) {
  test_make();
  test_bounds();
  test_wrong();
  return tap_end();
}
