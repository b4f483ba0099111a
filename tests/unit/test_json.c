#include "wire/json.h"

#include "tap.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

static struct nodetab *nodes;

/* The JSON text of a term without the newline; the caller frees it. */
static char *text_of(const struct term *t) {
  struct buf out = BUF_INIT;
  json_put_term(&out, nodes, t);
  return buf_take(&out);
}

static int term_of(const char *text, enum json_policy policy, struct term **out, struct error *e) {
  struct error ignored;
  if (!e) e = &ignored;
  json_t *v = json_parse(text, strlen(text), e);
  int rc = v ? json_to_term(nodes, v, policy, out, e) : e->code;
  json_decref(v);
  return rc;
}

/* Texts that json_put_term writes exactly as they were read. */
static void test_round_trips(void) {
  const char *cases[] = {
      "[]",
      "[null,true,false,0,-1,9223372036854775807,-9223372036854775808]",
      "[1.0,0.1,-0.0,1e+300,4.94065645841247e-324,0.3333333333333333,0.30000000000000004]",
      "[100000.0,1e+17,123456789012345.6]",
      "[\"\",\"text\",\"gr\xC3\xBC\xC3\x9F\",\"a\\u0000b\",\"\\\"\\\\\\n\\u001F\"]",
      "[[],[1,[2,[3]]],{},{\"a\":1,\"b\":{\"c\":[]}}]",
      "[{\"$bytes\":\"/wA=\"}]",
      "[{\"$float\":\"nan\"},{\"$float\":\"inf\"},{\"$float\":\"-inf\"}]",
      "[{\"$map\":[[1,\"one\"],[1.5,true],[true,null],[\"k\",[]]]},{\"$map\":[]}]",
      "[{\"$map\":[[{\"$bytes\":\"/w==\"},1],[\"k\",2]]},{\"$map\":[[\"a\\u0000\",1]]}]",
      "[{\"$pid\":\"one@rane.57.3\"},{\"$pid\":\"two@[::1].1.9\"},{\"$ref\":\"one@rane.9.3\"}]",
      "[{\"$$pid\":\"one@rane.57.3\"},{\"$$$\":1},{\"$$\":2,\"a$\":3}]",
      "[{\"$fn\":\"Y29kZQ==\"}]",
      "[{\"b\":1,\"a\":2,\"\":3}]",
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct term *t = NULL;
    struct error e = {0};
    int rc = term_of(cases[i], JSON_WITH_CODE, &t, &e);
    char *text = rc ? strdup(e.text) : text_of(t);
    is(text, cases[i], "round trip: %.60s", cases[i]);
    free(text);
    term_unref(t);
  }
}

static uint64_t bits_of(double d) {
  uint64_t bits;
  memcpy(&bits, &d, sizeof bits);
  return bits;
}

static void test_floats(void) {
  const double some[] = {DBL_MAX, DBL_MIN, DBL_EPSILON, 1.0 / 3,           2.0 / 3,
                         1e22,    1e23,    4.35,        9007199254740993.0};
  int wrong = 0;
  srandom(3);
  for (int i = 0; i < 20000; i++) {
    uint64_t bits = (uint64_t)random() << 33 ^ (uint64_t)random() << 11 ^ (uint64_t)random();
    double d;
    memcpy(&d, &bits, sizeof d);
    if (i < (int)(sizeof some / sizeof *some)) d = some[i];
    if (!isfinite(d)) continue;
    struct buf out = BUF_INIT;
    json_t *v = json_real(d);
    json_line(&out, v);
    json_decref(v);
    v = json_parse(out.data, out.len, NULL);
    wrong += !json_is_real(v) || bits_of(json_real_value(v)) != bits_of(d);
    json_decref(v);
    buf_finish(&out);
  }
  ok(!wrong, "every float comes back bit by bit, and as a float");
}

static void test_tags(void) {
  struct term *t = NULL;
  ok(term_of("[1,1.0,[],{},{\"$map\":[[\"\\u0000\",1]]},{\"$map\":[[1,2]]}]", JSON_DATA, &t, NULL) == 0,
     "read");
  struct term_reader r = term_read(t);
  const enum term_tag tags[] = {TERM_INT, TERM_FLOAT, TERM_LIST, TERM_MAP, TERM_MAP, TERM_TABLE};
  int wrong = 0;
  for (size_t i = 0; i < 6; i++) {
    struct term_reader here = r;
    wrong += term_next(&here).tag != tags[i];
    term_skip(&r);
  }
  ok(!wrong && r.at == r.end, "integer and float, list and map, map and table stay apart");
  term_unref(t);
}

static void test_bad(void) {
  const struct {
    const char *text;
    int code;
    const char *says;
  } cases[] = {
      {"{}", ERR_BAD_VALUE, "expected a message, a JSON array"},
      {"[1,{\"a\":{\"$pid\":7}}]", ERR_BAD_VALUE, "[1].a: \"$pid\": expected a pid"},
      {"[{\"$pid\":\"ticker\"}]", ERR_BAD_VALUE, "[0]: \"$pid\": expected a pid"},
      {"[{\"$pid\":\"<9.1.1>\"}]", ERR_NO_PROCESS, "[0]: <9.1.1>: no such process"},
      {"[{\"$ref\":null}]", ERR_BAD_VALUE, "[0]: \"$ref\": expected a ref"},
      {"[{\"$bytes\":\"/w\"}]", ERR_BAD_VALUE, "[0]: \"$bytes\": expected base64"},
      {"[{\"$float\":\"one\"}]", ERR_BAD_VALUE, "[0]: \"$float\": expected"},
      {"[{\"$float\":1.5}]", ERR_BAD_VALUE, "[0]: \"$float\": expected"},
      {"[{\"$map\":{}}]", ERR_BAD_VALUE, "[0]: \"$map\": expected"},
      {"[{\"$map\":[[1,2],[1]]}]", ERR_BAD_VALUE, "[0][1]: \"$map\": expected"},
      {"[{\"$map\":[[null,2]]}]", ERR_BAD_VALUE, "[0][0]: \"$map\": expected"},
      {"[{\"$fn\":\"Y29kZQ==\"}]", ERR_BAD_VALUE, "[0]: \"$fn\": compiled code is not taken from clients"},
      {"[{\"$fn2\":1}]", ERR_BAD_VALUE, "[0]: \"$fn2\" means nothing here"},
      {"[{\"$pid\":\"one@rane.1.3\",\"a\":1}]", ERR_BAD_VALUE, "[0]: \"$pid\" means nothing here"},
      {"[1,", ERR_BAD_JSON, "not JSON: column 3"},
      {"[\n1 2]", ERR_BAD_JSON, "not JSON: line 2"},
      {"[9223372036854775808]", ERR_BAD_JSON, "too big integer"},
      {"[{\"a\":1,\"a\":2}]", ERR_BAD_JSON, "duplicate"},
      {"[\"\xFF\"]", ERR_BAD_JSON, "not JSON"},
      {"", ERR_BAD_JSON, "not JSON"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct error e = {0};
    struct term *t = NULL;
    int rc = term_of(cases[i].text, JSON_DATA, &t, &e);
    ok(rc == cases[i].code && e.code == rc && strstr(e.text, cases[i].says) && !t, "refused: %s", e.text);
  }
}

/* A value of `depth` nested tables; the innermost is empty. */
static struct term *deep_tables(int depth) {
  struct term_writer w = TERM_WRITER_INIT;
  for (int i = 0; i < depth; i++) {
    size_t at = term_open(&w, TERM_TABLE);
    if (i + 1 == depth) break;
    term_set_count(&w, at, 1);
    term_put_int(&w, i);
  }
  struct term *t = term_from_writer(&w, 1);
  term_writer_finish(&w);
  return t;
}

static void test_depth(void) {
  struct error e = {0};
  struct term *t = deep_tables(TERM_DEPTH_MAX - 1), *back = NULL; /* the array around it is one level */
  char *text = text_of(t), *again = NULL;
  ok(term_of(text, JSON_DATA, &back, &e) == 0, "the deepest term that is allowed travels: %s", e.text);
  if (back) again = text_of(back);
  ok(again && strcmp(text, again) == 0, "and arrives as it was");
  free(text), free(again), term_unref(t), term_unref(back);
  back = NULL;
  t = deep_tables(TERM_DEPTH_MAX + 3), text = text_of(t); /* a term in the lists of a call between nodes */
  ok(term_of(text, JSON_WITH_CODE, &back, &e) == 0, "a peer may send it within a call: %s", e.text);
  free(text), term_unref(t), term_unref(back);
  back = NULL;
  char brackets[2 * TERM_DEPTH_MAX + 3];
  memset(brackets, '[', TERM_DEPTH_MAX + 1), memset(brackets + TERM_DEPTH_MAX + 1, ']', TERM_DEPTH_MAX + 1);
  brackets[2 * TERM_DEPTH_MAX + 2] = 0;
  ok(term_of(brackets, JSON_DATA, &back, &e) == ERR_TOO_LARGE && strstr(e.text, "nest"),
     "one deeper is refused: %s", strrchr(e.text, ':'));
  char *page = malloc(100001);
  memset(page, '[', 100000), page[100000] = 0;
  ok(term_of(page, JSON_DATA, &back, &e) == ERR_BAD_JSON, "a hundred thousand brackets harm nobody");
  free(page);
}

static void test_bytes(void) {
  struct buf out = BUF_INIT;
  json_t *text = json_from_bytes("t\0xt", 4), *bytes = json_from_bytes("\xFF\xFE", 2),
         *none = json_integer(1);
  ok(json_is_string(text) && json_to_bytes(text, &out) == 0 && out.len == 4 && !memcmp(out.data, "t\0xt", 4),
     "text");
  buf_clear(&out);
  ok(json_is_object(bytes) && json_to_bytes(bytes, &out) == 0 && out.len == 2 &&
         !memcmp(out.data, "\xFF\xFE", 2),
     "bytes");
  ok(json_to_bytes(none, &out) == ERR_BAD_VALUE && json_to_bytes(NULL, &out) == ERR_BAD_VALUE && out.len == 2,
     "neither");
  json_decref(text), json_decref(bytes), json_decref(none);
  buf_clear(&out);
  char zeros[300] = "text, and then zeros";
  json_put_bytes(&out, zeros, sizeof zeros);
  ok(out.len < sizeof zeros * 3 / 2 && !strncmp(out.data, "{\"$bytes\":\"", 11),
     "many control characters are base64, which is shorter");
  buf_clear(&out);
  memset(zeros, '\n', sizeof zeros);
  memset(zeros, 1, 20);
  json_put_bytes(&out, zeros, sizeof zeros);
  ok(out.data[0] == '"', "few of them are escaped");
  buf_finish(&out);
}

static void test_problems(void) {
  struct buf out = BUF_INIT;
  struct error e, back = {0};
  error_set(&e, ERR_NAME_TAKEN, "ticker: the name is taken by <0.57.3>");
  json_t *problem = json_problem(&e);
  json_line(&out, problem);
  is(out.data,
     "{\"type\":\"about:blank\",\"title\":\"the name is taken\",\"status\":409,\"code\":\"name_taken\","
     "\"exit\":1,\"detail\":\"ticker: the name is taken by <0.57.3>\"}\n",
     "a problem document");
  ok(json_to_error(out.data, out.len, 409, &back) == ERR_NAME_TAKEN && strcmp(back.text, e.text) == 0,
     "and back");
  json_decref(problem);
  buf_finish(&out);
  error_set(&e, ERR_BAD_NAME, "\xFF: no");
  problem = json_problem(&e);
  is(json_string_value(json_object_get(problem, "detail")), "\\xFF: no",
     "a text that is not UTF-8 still makes a document");
  json_decref(problem);
  const char *page = "  <html>teapot\n</html>";
  ok(json_to_error(page, strlen(page), 418, &back) == ERR_SYSTEM, "a page is no document");
  is(back.text, "the answer is HTTP status 418: <html>teapot", "its first line is shown");
  ok(json_to_error(NULL, 0, 500, &back) == ERR_SYSTEM && strstr(back.text, "500"), "nor is nothing: %s",
     back.text);
}

/* An allocation of jansson or buf that fails in the middle of a conversion makes the result NULL. */
static size_t allocations_left = SIZE_MAX;
static void *scarce(size_t n) {
  if (!allocations_left) return NULL;
  allocations_left--;
  return malloc(n);
}

static void test_memory(void) {
  struct term *t = NULL;
  const char *text =
      "[{\"a\":[1,{\"$map\":[[1,2.5]]}],\"$$k\":{\"$pid\":\"one@rane.57.3\"}},{\"$bytes\":\"/w==\"}]";
  if (term_of(text, JSON_DATA, &t, NULL)) return;
  size_t refused = 0;
  json_t *v = NULL;
  json_set_alloc_funcs(scarce, free);
  for (size_t n = 0; !v && n < 1000; n++) {
    allocations_left = n;
    struct term_reader r = term_read(t);
    v = json_from_value(nodes, &r);
    refused += !v;
  }
  allocations_left = SIZE_MAX;
  json_decref(v);
  json_set_alloc_funcs(malloc, free);
  ok(v && refused > 10, "each of %zu failing allocations ends in NULL", refused);
  term_unref(t);
}

/* --- the reader of text, beside jansson's --- */

/* Reads the whole text as the values of a term. */
static int read_text(const char *text, size_t n, struct term **out, struct error *e) {
  struct json_source s = {text, text, text + n};
  struct term_writer w = TERM_WRITER_INIT;
  uint32_t count = 0;
  int rc = json_get_values(&s, nodes, JSON_WITH_CODE, &w, &count, e);
  while (!rc && s.at < s.end && strchr(" \n\t\r", *s.at)) s.at++;
  if (!rc && s.at < s.end) rc = ERR_BAD_JSON;
  if (!rc) *out = term_from_writer(&w, count);
  term_writer_finish(&w);
  return rc;
}

/* What a node has got from others is no reason to fail: in Lua and in a tree the last value counts. */
static void test_twice(void) {
  static const char text[] = "[{\"a\":1,\"b\":[{\"c\":1,\"c\":2}],\"a\":3}]";
  struct error e = {0};
  struct term *t = NULL;
  ok(!read_text(text, sizeof text - 1, &t, &e), "a key that is there twice is read");
  struct term_reader r = term_read(t);
  json_t *v = json_from_value(nodes, &r);
  ok(json_integer_value(json_object_get(v, "a")) == 3 &&
         json_integer_value(json_object_get(json_array_get(json_object_get(v, "b"), 0), "c")) == 2,
     "its last value is in the tree");
  json_decref(v);
  term_unref(t);
  ok(!json_parse("{\"a\":1,\"a\":2}", 13, &e), "a request is refused");
  v = json_parse_loose("{\"a\":1,\"a\":2}", 13, &e);
  ok(json_integer_value(json_object_get(v, "a")) == 2, "what a node has written is not");
  json_decref(v);
}

static unsigned below(unsigned n) {
  return (unsigned)random() % n;
}

static void put_random_text(struct term_writer *w) {
  static const char *const pieces[] = {"plain",
                                       "\"",
                                       "\\",
                                       "\n",
                                       "\x01",
                                       "gr\xC3\xBC\xC3\x9F",
                                       "\xF0\x9F\x90\x9D",
                                       "$",
                                       "/",
                                       "\x7F",
                                       "0123456789abcdef",
                                       "\xFF"};
  struct buf text = BUF_INIT;
  for (unsigned i = below(8); i; i--) buf_puts(&text, pieces[below(below(9) ? 11 : 12)]);
  term_put_str(w, text.data, text.len);
  buf_finish(&text);
}

static void put_random(struct term_writer *w, int depth) {
  size_t at;
  unsigned n = below(5), kind = below(depth > 4 ? 7 : 10);
  switch (kind) {
  case 0: term_put_nil(w); return;
  case 1: term_put_bool(w, below(2)); return;
  case 2: term_put_int(w, (int64_t)((uint64_t)random() << 33 ^ (uint64_t)random() << 2) >> below(64)); return;
  case 3: term_put_float(w, (double)random() / (1 + below(1000)) * (below(2) ? 1 : -1e-10)); return;
  case 4: term_put_pid(w, npid_make(0, 1 + below(1000))); return;
  case 5:
  case 6: put_random_text(w); return;
  case 7:
    at = term_open(w, TERM_LIST);
    for (unsigned i = 0; i < n; i++) put_random(w, depth + 1);
    break;
  case 8:
    at = term_open(w, TERM_MAP);
    for (unsigned i = 0; i < n; i++) put_random_text(w), put_random(w, depth + 1);
    break;
  default:
    at = term_open(w, TERM_TABLE);
    for (unsigned i = 0; i < n; i++) term_put_int(w, i), put_random(w, depth + 1);
    break;
  }
  term_set_count(w, at, n);
}

static struct term *random_term(void) {
  struct term_writer w = TERM_WRITER_INIT;
  unsigned n = below(6);
  for (unsigned i = 0; i < n; i++) put_random(&w, 0);
  struct term *t = term_from_writer(&w, n);
  term_writer_finish(&w);
  return t;
}

static void test_random(void) {
  int lost = 0, unread = 0;
  srandom(7);
  for (int i = 0; i < 3000; i++) {
    struct term *t = random_term(), *back = NULL;
    struct error e = {0};
    char *text = text_of(t);
    if (read_text(text, strlen(text), &back, &e) || back->size != t->size ||
        memcmp(back->bytes, t->bytes, t->size) != 0)
      lost++, printf("# %s: %s\n", e.text, text);
    json_t *v = json_loads(text, JSON_ALLOW_NUL, NULL);
    unread += !v;
    json_decref(v);
    free(text);
    term_unref(t), term_unref(back);
  }
  ok(!lost, "whatever is written is read back, byte for byte");
  ok(!unread, "and jansson reads it");
}

/* Replaces one to three bytes by bytes that have a meaning in JSON. */
static void spoil(char *text, size_t n) {
  static const char bytes[] = "[]{},:\"\\ tfn-+.0123456789eEu$\n\x01\xC3\xFF/";
  for (unsigned i = 1 + below(3); i; i--) text[below((unsigned)n)] = bytes[below(sizeof bytes - 1)];
}

static void test_spoiled(void) {
  int differ = 0, good = 0, bad = 0;
  srandom(11);
  for (int i = 0; i < 60000; i++) {
    struct term *t = random_term(), *back = NULL;
    struct error e = {0};
    char *text = text_of(t);
    size_t n = strlen(text);
    spoil(text, n);
    json_t *v = json_loadb(text, n, JSON_ALLOW_NUL, NULL);
    int rc = read_text(text, n, &back, &e);
    bool syntax = rc == ERR_BAD_JSON, means = json_is_array(v);
    /* Valid JSON need not be a value of a term, and jansson refuses a NUL in a key. */
    if (means ? syntax : !rc && !strstr(text, "u0000")) differ++, printf("# %d %s: %s\n", rc, e.text, text);
    if (rc)
      bad++;
    else
      good++;
    json_decref(v);
    free(text);
    term_unref(t), term_unref(back);
  }
  ok(!differ && good > 1000 && bad > 1000,
     "of spoiled text, what jansson refuses is refused, and the rest is read");
}

int main(void) {
  nodes = nodetab_new("one@rane", 3);
  test_round_trips();
  test_floats();
  test_tags();
  test_bad();
  test_depth();
  test_bytes();
  test_problems();
  test_memory();
  test_twice();
  test_random();
  test_spoiled();
  nodetab_free(nodes);
  return tap_end();
}
