/* Words for many nodes: which names a word stands for, which words are refused, and that folding and
 * expanding are inverse. */
#include "core/nodeset.h"

#include "tap.h"

#include <stdlib.h>
#include <string.h>

static int add(void *data, const char *name) {
  struct buf *out = data;
  buf_printf(out, "%s%s", out->len ? " " : "", name);
  return 0;
}

/* The names of the word, with blanks between; or the text of the error. */
static const char *names(const char *word) {
  static struct buf out;
  static struct error e;
  buf_clear(&out);
  e = (struct error){0};
  return nodeset_expand(word, add, &out, &e) ? error_text(&e) : out.data;
}

/* Folds names that are given with blanks between. */
static const char *folded(const char *list) {
  static struct buf out;
  const char *all[64];
  size_t n = 0;
  char *copy = strdup(list), *save = NULL;
  for (char *w = strtok_r(copy, " ", &save); w && n < 64; w = strtok_r(NULL, " ", &save)) all[n++] = w;
  buf_clear(&out);
  buf_puts(&out, "");
  nodeset_fold(&out, all, n);
  free(copy);
  return out.data;
}

static void test_expand(void) {
  is(names("one@rane"), "one@rane", "a name");
  is(names("one"), "one", "a short name");
  is(names("web*"), "web*", "a pattern stays");
  is(names("web[1-3]@rane"), "web1@rane web2@rane web3@rane", "a range");
  is(names("web[1-2,7]@rane"), "web1@rane web2@rane web7@rane", "a list of ranges");
  is(names("web[08-10]@rane"), "web08@rane web09@rane web10@rane", "leading zeros");
  is(names("a[1-2]@h[3-4]"), "a1@h3 a1@h4 a2@h3 a2@h4", "two sets");
  is(names("a@h,b[1-2]@h"), "a@h b1@h b2@h", "a comma");
  is(names("one@[::1]"), "one@[::1]", "an IPv6 address is no set");
  is(names("a[1-2]@[::1]"), "a1@[::1] a2@[::1]", "an IPv6 address behind a set");
  is(names("a@h\nb"), "a@h\nb", "other characters are for the caller to check");
}

static void test_refused(void) {
  is(names(""), "an empty word is not a node name", "an empty word");
  is(names("a,,b"), "a,,b: an empty name between commas", "an empty name");
  is(names("a,"), "a,: an empty name between commas", "a comma at the end");
  is(names("a[1-3"), "a[1-3: a bracket is not closed", "an open bracket");
  is(names("a[]"), "a[]: expected numbers, as in web[1-40]", "an empty set");
  is(names("a[1,]"), "a[1,]: expected numbers, as in web[1-40]", "an empty range");
  is(names("a[x]"), "a[x]: expected numbers, as in web[1-40]", "letters");
  is(names("a[1--2]"), "a[1--2]: expected numbers, as in web[1-40]", "two dashes");
  is(names("a[-2]"), "a[-2]: expected numbers, as in web[1-40]", "no first number");
  is(names("a[99999999999999999999]"), "a[99999999999999999999]: expected numbers, as in web[1-40]",
     "a long number");
  is(names("a[3-1]"), "a[3-1]: a range begins with its smaller number, as in web[1-40]", "a reversed range");
  is(names("a[1-999999999]"), "a[1-999999999]: a word can have 10000 names at most", "too many");
  is(names("a[1-101][1-100]"), "a[1-101][1-100]: a word can have 10000 names at most",
     "too many by two sets");
}

static int stop(void *data, const char *name) {
  ++*(int *)data;
  return name[1] == '2' ? 7 : 0;
}

static void test_stop(void) {
  int seen = 0;
  struct error e = {0};
  ok(nodeset_expand("a[1-9]", stop, &seen, &e) == 7 && seen == 2 && !e.code, "the callback can end it");
}

static void test_fold(void) {
  is(folded(""), "", "none");
  is(folded("one@rane"), "one@rane", "one");
  is(folded("web2@rane web1@rane web3@rane"), "web[1-3]@rane", "a range");
  is(folded("web1@rane web3@rane web1@rane"), "web[1,3]@rane", "a gap, and a name that comes twice");
  is(folded("web9@rane web10@rane web11@rane"), "web[9-11]@rane", "across a power of ten");
  is(folded("w08@r w09@r w10@r"), "w[08-10]@r", "leading zeros");
  is(folded("w1@r w01@r w2@r"), "w[1,01,2]@r", "two widths");
  is(folded("one@h1 one@h2 one@h4"), "one@h[1-2,4]", "hosts");
  is(folded("a1@h1 a2@h1 a1@h2 a2@h2"), "a[1-2]@h[1-2]", "names and hosts");
  is(folded("a1@h1 a2@h2"), "a1@h1,a2@h2", "no product");
  is(folded("b@h a@h"), "a@h,b@h", "no numbers");
  is(folded("a1@[::1] a2@[::1]"), "a[1-2]@[::1]", "an IPv6 address");
  is(folded("a@[::1] a@[::2]"), "a@[::1],a@[::2]", "IPv6 addresses are not folded");
  is(folded("a@127.0.0.1 a@127.0.0.2"), "a@127.0.0.[1-2]", "IPv4 addresses");
  is(folded("a12345678901@h a12345678902@h"), "a12345678901@h,a12345678902@h", "long numbers are text");
}

static void test_round_trip(void) {
  static const char *const words[] = {"a[1-2]@h[1-2]", "w[08-10,12]@r", "a@h,b[1-3]@h", "w[1,01,2]@r",
                                      "web[9-11]@rane"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    is(folded(names(words[i])), words[i], "folded(expanded(word)) is the word");
}

int main(void) {
  test_expand();
  test_refused();
  test_stop();
  test_fold();
  test_round_trip();
  return tap_end();
}
