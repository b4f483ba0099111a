#include "core/term.h"

#include "tap.h"

#include <math.h>

static bool next_is(struct term_reader *r, enum term_tag tag) {
  return term_next(r).tag == tag;
}

static void test_values(void) {
  const int64_t ints[] = {0, 1, -1, 63, -64, 64, 300, -300, INT64_MAX, INT64_MIN};
  struct term_writer w = TERM_WRITER_INIT;
  size_t n = sizeof ints / sizeof *ints;
  for (size_t i = 0; i < n; i++) term_put_int(&w, ints[i]);
  struct term *t = term_from_writer(&w, (uint32_t)n);
  struct term_reader r = term_read(t);
  size_t same = 0;
  int64_t v;
  for (size_t i = 0; i < n; i++) same += term_get_int(&r, &v) && v == ints[i];
  ok(same == n && r.at == r.end, "integers of every size come back");
  term_unref(t);

  term_writer_clear(&w);
  term_put_nil(&w), term_put_bool(&w, true), term_put_bool(&w, false), term_put_float(&w, -0.0);
  term_put_str(&w, "a\0b", 3), term_put_text(&w, ""), term_put_fn(&w, "code", 4);
  term_put_pid(&w, npid_make(3, 9)), term_put_pid(&w, npid_as_ref(7)), term_put_pid(&w, NPID_NONE);
  t = term_from_writer(&w, 10);
  r = term_read(t);
  ok(next_is(&r, TERM_NIL) && next_is(&r, TERM_TRUE) && next_is(&r, TERM_FALSE), "atoms");
  struct term_value d = term_next(&r), s = term_next(&r), empty = term_next(&r), fn = term_next(&r);
  ok(d.tag == TERM_FLOAT && d.d == 0 && signbit(d.d), "a float, with its sign");
  ok(s.tag == TERM_STR && s.len == 3 && !memcmp(s.s, "a\0b", 3) && empty.tag == TERM_STR && !empty.len,
     "strings");
  ok(fn.tag == TERM_FN && fn.len == 4 && !memcmp(fn.s, "code", 4), "code");
  struct term_value pid = term_next(&r), ref = term_next(&r);
  ok(pid.tag == TERM_PID && pid.pid == npid_make(3, 9), "a pid");
  ok(ref.tag == TERM_REF && ref.pid == npid_as_ref(7), "a reference");
  ok(next_is(&r, TERM_NIL) && next_is(&r, TERM_END), "no pid is nil, and then the end");
  term_unref(t);
  term_writer_finish(&w);
}

static struct term *nested(void) {
  struct term_writer w = TERM_WRITER_INIT;
  size_t map = term_open(&w, TERM_MAP);
  term_put_text(&w, "list");
  size_t list = term_open(&w, TERM_LIST);
  term_put_int(&w, 1), term_put_int(&w, 2);
  term_set_count(&w, list, 2);
  term_put_text(&w, "name"), term_put_text(&w, "ticker");
  term_set_count(&w, map, 2);
  term_put_int(&w, 42);
  struct term *t = term_from_writer(&w, 2);
  term_writer_finish(&w);
  return t;
}

static void test_nested(void) {
  struct term *t = nested();
  struct term_reader r = term_read(t), found;
  const char *s;
  size_t len;
  int64_t v;
  ok(term_map_find(r, "name", &found) && term_get_str(&found, &s, &len) && len == 6 &&
         !memcmp(s, "ticker", 6),
     "a key behind a list is found");
  ok(term_map_find(r, "list", &found) && term_next(&found).count == 2, "any kind of value is found");
  ok(!term_map_find(r, "nam", &found) && !term_map_find(r, "names", &found), "other keys are not");
  term_skip(&r);
  ok(term_get_int(&r, &v) && v == 42 && r.at == r.end, "skip passes over a whole map");
  r = term_read(t);
  ok(!term_get_int(&r, &v) && term_get_int(&r, &v) && v == 42, "the wrong kind is passed over whole");
  ok(!term_get_int(&r, &v) && !term_map_find(r, "x", &found), "at the end there is nothing");
  term_unref(t);
}

static void test_build(void) {
  struct term *inner = term_build("si", "x", (int64_t)-7);
  struct term *t = term_build("sbinplt", "op", 1, (int64_t)5, npid_make(1, 2), inner, inner);
  struct term_reader r = term_read(t);
  const char *s;
  size_t len;
  int64_t v;
  npid p;
  ok(t->count == 8, "l is one value, t as many as it has");
  ok(term_get_str(&r, &s, &len) && len == 2 && next_is(&r, TERM_TRUE) && term_get_int(&r, &v) && v == 5 &&
         next_is(&r, TERM_NIL) && term_get_pid(&r, &p) && p == npid_make(1, 2),
     "its parts");
  struct term_value list = term_next(&r);
  ok(list.tag == TERM_LIST && list.count == 2 && term_get_str(&r, &s, &len) && term_get_int(&r, &v) &&
         v == -7,
     "a list");
  ok(term_get_str(&r, &s, &len) && term_get_int(&r, &v) && v == -7 && r.at == r.end, "spliced");
  term_unref(t);
  t = term_build("lt", NULL, NULL);
  r = term_read(t);
  ok(t->count == 1 && term_next(&r).count == 0 && r.at == r.end, "no term: an empty list, and nothing");
  term_unref(t), term_unref(inner), term_unref(NULL);
}

static void test_words(void) {
  struct term *word = term_build("si", "kill", (int64_t)1), *number = term_build("i", (int64_t)1);
  ok(term_is_word(word, "kill"), "the first value is the word");
  ok(!term_is_word(word, "kil") && !term_is_word(word, "kills"), "and no other");
  ok(!term_is_word(number, "kill") && !term_is_word(NULL, "kill"), "a number is none, nor is nothing");
  term_unref(word);
  term_unref(number);
}

static void test_depth_and_refs(void) {
  struct term_writer w = TERM_WRITER_INIT;
  for (int i = 0; i < 100000; i++) term_set_count(&w, term_open(&w, TERM_LIST), 1);
  term_put_nil(&w);
  struct term *t = term_from_writer(&w, 1);
  struct term_reader r = term_read(t);
  term_skip(&r);
  ok(r.at == r.end, "skip takes no stack");
  term_unref(term_ref(t));
  ok(t->count == 1, "a referenced term stays");
  term_unref(t);
  term_writer_finish(&w);
}

static void test_limit(void) {
  struct term_writer w = TERM_WRITER_INIT;
  static char block[1 << 20];
  size_t blocks = 0;
  while (!w.failed && ++blocks <= 200) term_put_str(&w, block, sizeof block);
  ok(w.failed == ERR_TOO_LARGE && w.len <= TERM_SIZE_MAX && blocks == 128, "a term has its limit");
  ok(term_from_writer(&w, 1) == NULL, "and then makes no term");
  term_put_str(&w, block, SIZE_MAX);
  term_writer_clear(&w);
  term_put_nil(&w);
  ok(w.len == 1 && !w.failed, "cleared, it writes again");
  term_put_str(&w, block, SIZE_MAX - 4);
  ok(w.failed == ERR_TOO_LARGE, "a length near SIZE_MAX does not wrap");
  term_writer_finish(&w);
}

/* term_take copies a term of at most TERM_TAKEN bytes; term_take_all takes every one over. */
static void test_take(void) {
  static char bytes[2 * TERM_TAKEN];
  static const size_t sizes[] = {0, 1, 1000, 65536, TERM_TAKEN, sizeof bytes};
  memset(bytes, 'x', sizeof bytes);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (int all = 0; all < 2; all++) {
      struct term_writer w = TERM_WRITER_INIT;
      const char *at = NULL;
      size_t n = 0;
      if (sizes[i] & 1) term_reserve(&w, sizes[i] + 64);
      term_put_str(&w, bytes, sizes[i]);
      struct term *t = all ? term_take_all(&w, 1) : term_take(&w, 1);
      struct term_reader r = term_read(t);
      bool same = term_get_str(&r, &at, &n) && n == sizes[i] && memcmp(at, bytes, n) == 0 && r.at == r.end;
      ok(same && t->count == 1 && !w.len && (!all || !w.data), "%zu bytes, %s", sizes[i],
         all ? "all" : "taken");
      term_put_nil(&w);
      ok(w.len == 1 && !w.failed, "and the writer writes again");
      term_unref(t);
      term_writer_finish(&w);
    }
  }
  struct term_writer w = TERM_WRITER_INIT;
  struct term *t = term_take_all(&w, 0);
  ok(t && !t->size && !t->count, "a term of nothing");
  term_unref(t);
  w.failed = ERR_NOMEM;
  ok(!term_take_all(&w, 0), "a writer that has failed makes none");
  term_writer_finish(&w);
}

int main(void) {
  test_values();
  test_take();
  test_nested();
  test_build();
  test_words();
  test_depth_and_refs();
  test_limit();
  return tap_end();
}
