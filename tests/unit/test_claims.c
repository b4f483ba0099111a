/* Claims: which of two takes precedence on every node, and which one is shown when one is dropped. */
#include "agent/registry/claims.h"

#include "tap.h"

struct fixture {
  struct claims claims;
  struct home one, two, three;
};

static struct fixture *fixture_new(void) {
  static struct fixture f;
  f = (struct fixture){.one = {.incarnation = 0, .node = "one@a"},
                       .two = {.incarnation = 5, .node = "two@b"},
                       .three = {.incarnation = 6, .node = "three@c"}};
  f.claims.globals = names_new();
  return &f;
}

static void fixture_free(struct fixture *f) {
  claims_finish(&f->claims);
  names_free(f->claims.globals);
}

static struct claim *put(struct fixture *f, struct home *h, const char *name, uint64_t number, uint64_t token,
                         uint64_t age, uint64_t over) {
  struct claim_terms terms = {npid_make(h->incarnation, number), token, age, over};
  return claims_put(&f->claims, h, name, &terms);
}

static npid shown(struct fixture *f, const char *name) {
  return names_whereis(f->claims.globals, name, NULL);
}

static void test_precedence(void) {
  struct fixture *f = fixture_new();
  put(f, &f->two, "db", 1, 20, 20, 0);
  ok(shown(f, "db") == npid_make(5, 1), "one claim is shown");
  put(f, &f->one, "db", 2, 10, 10, 0);
  ok(shown(f, "db") == npid_make(0, 2), "the older of two is shown");
  put(f, &f->three, "db", 3, 30, 10, 10);
  ok(shown(f, "db") == npid_make(6, 3), "and what has replaced the older by force");
  claims_remove(&f->claims, claims_of(&f->claims, &f->three, "db"));
  ok(shown(f, "db") == npid_make(0, 2), "when the first goes, the next is shown");
  claims_remove(&f->claims, claims_of(&f->claims, &f->two, "db"));
  ok(shown(f, "db") == npid_make(0, 2), "when the last goes, the first stays");
  claims_remove(&f->claims, claims_of(&f->claims, &f->one, "db"));
  ok(shown(f, "db") == NPID_NONE && !f->one.count && !f->one.sum && !f->two.count, "until all are gone");
  fixture_free(f);
}

static void test_equal_tokens(void) {
  for (int order = 0; order < 2; order++) {
    struct fixture *f = fixture_new();
    put(f, order ? &f->one : &f->two, "db", 7, 20, 20, 0);
    put(f, order ? &f->two : &f->one, "db", 7, 20, 20, 0);
    ok(shown(f, "db") == npid_make(0, 7), "of equal tokens the node name that sorts first, in any order");
    fixture_free(f);
  }
}

/* The claim that is shown depends only on the set of claims, not on the order in which they come and go. */
static void test_any_order(void) {
  static const uint64_t terms[3][3] = {{20, 20, 0}, {25, 10, 10}, {15, 15, 0}};
  int wrong = 0;
  for (int first = 0; first < 3; first++)
    for (int second = 0; second < 3; second++) {
      if (first == second) continue;
      int order[3] = {first, second, 3 - first - second};
      struct fixture *f = fixture_new();
      struct home *homes[] = {&f->one, &f->two, &f->three};
      for (int i = 0; i < 3; i++) {
        int k = order[i];
        put(f, homes[k], "db", (uint64_t)k + 1, terms[k][0], terms[k][1], terms[k][2]);
      }
      wrong += shown(f, "db") != npid_make(5, 2);
      claims_remove(&f->claims, claims_of(&f->claims, &f->two, "db"));
      wrong += shown(f, "db") != npid_make(6, 3);
      fixture_free(f);
    }
  ok(!wrong, "the order in which claims come changes nothing");
}

static void test_version(void) {
  struct fixture *f = fixture_new();
  put(f, &f->one, "a", 1, 10, 10, 0);
  put(f, &f->one, "b", 2, 11, 11, 0);
  put(f, &f->two, "b", 2, 11, 11, 0);
  put(f, &f->two, "a", 1, 10, 10, 0);
  ok(f->one.sum == f->two.sum && f->one.count == 2 && f->two.count == 2,
     "equal claims have an equal version, in whatever order they came");
  uint64_t before = f->two.sum;
  put(f, &f->two, "a", 1, 12, 12, 0);
  ok(f->two.sum != before && f->two.count == 2, "another token is another version");
  put(f, &f->two, "a", 1, 10, 10, 0);
  ok(f->two.sum == before, "and the old one the old");
  claims_remove(&f->claims, claims_of(&f->claims, &f->two, "a"));
  ok(f->two.sum != before && f->two.count == 1, "so is a claim less");
  fixture_free(f);
}

int main(void) {
  test_precedence();
  test_equal_tokens();
  test_any_order();
  test_version();
  return tap_end();
}
