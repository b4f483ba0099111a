#include "core/relays.h"

#include "tap.h"

#include <stdlib.h>

static void test_make(void) {
  static const char *const words[] = {"two@rane:4371", "Three@ARRA", "two@rane"};
  static const char *const many[] = {"a@h", "b@h", "c@h", "d@h", "e@h"};
  char *list = NULL;
  struct error e;
  ok(!relays_make(words, 0, "one@dune", &list, &e), "no relays");
  is(list, "", "are an empty list");
  free(list);
  ok(!relays_make(words, 2, "one@dune", &list, &e), "two relays");
  is(list, "two@rane Three@arra", "are a list of names as nodes write them, without ports");
  ok(!relays_check(list, &e), "which is checked");
  ok(relays_have(list, "two@rane") && relays_have(list, "Three@arra") && !relays_have(list, "two@ran") &&
         !relays_have(list, "wo@rane"),
     "it has these names, and no parts of them");
  free(list);
  list = NULL;
  ok(relays_make(words, 3, "one@dune", &list, &e) == ERR_USAGE && strstr(e.text, "twice"), "%s", e.text);
  ok(relays_make(words, 1, "two@rane", &list, &e) == ERR_USAGE, "%s", e.text);
  ok(relays_make(many, 5, "one@dune", &list, &e) == ERR_USAGE, "%s", e.text);
  ok(!relays_make(many, RELAYS_MAX, "one@dune", &list, &e), "the most that there may be");
  free(list);
  list = NULL;
  ok(relays_make((const char *const[]){"rane"}, 1, "one@dune", &list, &e) == ERR_BAD_NODE && !list, "%s",
     e.text);
}

static void test_check(void) {
  static const char *const bad[] = {"two",       "two@rane:4371", "two@RANE", " two@rane",
                                    "two@rane ", "a@h  b@h",      "a@h\nb@h", "a@h b@h c@h d@h e@h"};
  struct error e;
  ok(!relays_check("", &e) && !relays_check("a@h b@h c@h d@[::1]", &e), "lists that nodes write are good");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    ok(relays_check(bad[i], &e) == ERR_USAGE, "'%s' is not: %s", bad[i], e.text);
  char name[NODENAME_SIZE];
  const char *at = "a@h b@h";
  ok(relays_next(&at, name) && !strcmp(name, "a@h"), "the names of a list come one by one");
  ok(relays_next(&at, name) && !strcmp(name, "b@h") && !relays_next(&at, name), "up to the last");
}

int main(void) {
  test_make();
  test_check();
  return tap_end();
}
