#include "wire/pieces.h"

#include "tap.h"

#include <stdlib.h>

static struct nodetab *here, *there; /* the tables of one@rane and of two@dune */

static struct frames frames_there(void) {
  struct frames f = {.nodes = there};
  if (nodetab_intern(there, "one@rane", 3, &f.peer)) abort();
  return f;
}

static struct signal *message(struct term *t) {
  return signal_new(SIGNAL_MESSAGE, npid_make(1, 9), npid_make(0, 57), NPID_NONE, t);
}

/* The lines of a signal, which is freed. */
static void write_all(struct signal *s, struct buf *out) {
  struct pieces_writer w;
  pieces_begin(&w, here, 1, s, out);
  while (!pieces_put(&w, out)) continue;
  signal_free(s);
}

struct counts {
  int lines;
  size_t longest;
};

/* Reads lines up to the end or the first error. */
static int read_all(const struct buf *lines, struct pieces_reader **out, struct error *e, struct counts *c) {
  struct frames f = frames_there();
  const char *at = lines->data, *end = at + lines->len;
  int rc = 0;
  *out = NULL;
  for (const char *next; !rc && at < end; at = next) {
    next = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    size_t n = (size_t)(next - at - 1);
    rc = *out ? pieces_read(*out, at, n, e) : pieces_open(&f, at, n, 1, out, e);
    c->lines++;
    if (n > c->longest) c->longest = n;
  }
  frames_finish(&f);
  return rc;
}

/* --- what is written is read ---------------------------------------------------------------------------- */

static bool same_term(const struct term *a, const struct term *b) {
  return a->count == b->count && a->size == b->size && !memcmp(a->bytes, b->bytes, a->size);
}

static void carries(struct term *t, const char *what) {
  struct buf lines = BUF_INIT;
  struct pieces_reader *r;
  struct error e = {0};
  struct counts c = {0};
  term_ref(t);
  write_all(message(t), &lines);
  int rc = read_all(&lines, &r, &e, &c);
  struct signal *s = !rc && r && pieces_whole(r) ? pieces_take(r) : NULL;
  ok(s && same_term(s->term, t) && s->to == npid_make(0, 9), "%s: %d lines%s%s", what, c.lines,
     rc ? ": " : "", rc ? e.text : "");
  ok(c.longest < PIECE_LINE_MAX / 2, "and none is too long (%zu)", c.longest);
  signal_free(s);
  pieces_free(r);
  buf_finish(&lines);
  term_unref(t);
}

static struct term *take(struct term_writer *w, uint32_t count) {
  struct term *t = term_take(w, count);
  term_writer_finish(w);
  if (!t) abort();
  return t;
}

static struct term *strings(const char *unit, size_t n, size_t times) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, "before");
  term_open_bytes(&w, TERM_STR, n * times);
  for (size_t i = 0; i < times; i++) term_put_raw(&w, unit, n);
  term_put_text(&w, "behind");
  return take(&w, 3);
}

static struct term *floats(uint32_t n) {
  struct term_writer w = TERM_WRITER_INIT;
  term_set_count(&w, term_open(&w, TERM_LIST), n);
  for (uint32_t i = 0; i < n; i++) term_put_float(&w, (double)i / 7);
  return take(&w, 1);
}

static void put_row(struct term_writer *w, uint32_t i) {
  term_set_count(w, term_open(w, TERM_MAP), 4);
  term_put_text(w, "id"), term_put_int(w, (int64_t)i * i * i - 1000);
  term_put_text(w, "$tags");
  term_set_count(w, term_open(w, TERM_LIST), 3);
  term_put_bool(w, i & 1), term_put_nil(w), term_put_float(w, i);
  term_put_str(w, "\xff\0key", 5), term_set_count(w, term_open(w, TERM_LIST), 0);
  term_put_text(w, "pairs");
  term_set_count(w, term_open(w, TERM_TABLE), 1);
  term_put_pid(w, npid_make(0, i + 1)), term_put_pid(w, npid_as_ref(npid_make(0, i + 1)));
}

/* Pids of this node have another index in the table of the other. */
static void test_rows(void) {
  struct term_writer w = TERM_WRITER_INIT, back = TERM_WRITER_INIT;
  struct buf lines = BUF_INIT;
  struct pieces_reader *r;
  struct error e = {0};
  struct counts c = {0};
  uint32_t rows = 20000;
  term_set_count(&w, term_open(&w, TERM_LIST), rows);
  for (uint32_t i = 0; i < rows; i++) put_row(&w, i);
  write_all(message(take(&w, 1)), &lines);
  int rc = read_all(&lines, &r, &e, &c);
  ok(!rc && pieces_whole(r) && c.lines > 10, "rows of all types: %d lines %s", c.lines, rc ? e.text : "");
  struct signal *s = pieces_take(r), *again;
  again = signal_new(SIGNAL_MESSAGE, npid_make(1, 9), npid_make(0, 57), NPID_NONE, term_ref(s->term));
  pieces_free(r);
  struct nodetab *mine = here;
  struct buf second = BUF_INIT;
  here = there; /* as the other node would write it */
  struct pieces_writer p;
  pieces_begin(&p, here, 1, again, &second);
  buf_clear(&second);
  while (!pieces_put(&p, &second)) continue;
  here = mine;
  const char *first_piece = strchr(lines.data, '\n') + 1;
  ok(second.len == lines.len - (size_t)(first_piece - lines.data) &&
         !memcmp(second.data, first_piece, second.len),
     "who writes them again writes the same lines");
  signal_free(s);
  signal_free(again);
  term_writer_finish(&back);
  buf_finish(&lines);
  buf_finish(&second);
}

static void test_round(void) {
  carries(strings("text, and more text. ", 21, 50000), "a long text");
  carries(strings("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, 30000), "a long text of long characters");
  carries(strings("\"\\\n\x01", 4, 100000), "a long text of escapes");
  carries(strings("\xff\xfe\0", 3, 100000), "long bytes");
  carries(floats(100000), "many numbers");
  carries(floats(3), "few numbers");
  carries(term_build("sinb", "x", INT64_MIN, 1), "small values");
  test_rows();
}

static void test_deep(void) {
  struct term_writer w = TERM_WRITER_INIT;
  for (int i = 0; i < TERM_DEPTH_MAX; i++) term_set_count(&w, term_open(&w, TERM_LIST), 2);
  for (int i = 0; i < TERM_DEPTH_MAX; i++) term_put_int(&w, i);
  term_put_nil(&w);
  carries(take(&w, 1), "the deepest value");
}

static void test_function(void) {
  struct term_writer w = TERM_WRITER_INIT;
  char *code = calloc(1, 200000);
  term_put_fn(&w, code, 200000);
  term_put_fn(&w, code, 10);
  free(code);
  carries(take(&w, 2), "a long function and a short one");
}

/* --- what is refused ------------------------------------------------------------------------------------ */

#define FIRST(rest) "[\"pieces\",1,\"message\",\"two@dune.9.5\",\"one@rane.57.3\",null," rest "]\n"

static void refuses(const char *text, const char *why) {
  struct buf lines = BUF_INIT;
  struct pieces_reader *r;
  struct error e = {0};
  struct counts c = {0};
  buf_puts(&lines, text);
  int rc = read_all(&lines, &r, &e, &c);
  ok(rc && rc == e.code && strstr(e.text, why), "%s: %s", why, rc ? e.text : "it is read");
  pieces_free(r);
  buf_finish(&lines);
}

static void test_bad_first(void) {
  refuses("[\"pieces\",2,\"message\",\"two@dune.9.5\",null,null,1,9]\n", "not the next one");
  refuses("[\"pieces\",x]\n", "expected [\"pieces\"");
  refuses("[\"pieces\",1,\"shout\",null,null,null,1,9]\n", "kind is unknown");
  refuses("[\"pieces\",1,\"message\",\"one@rane.9.3\",null,null,1,9]\n", "no process of this node");
  refuses("[\"pieces\",1,\"message\",\"two@dune.9.5\",\"two@dune.9.5\",null,1,9]\n",
          "no process of the peer");
  refuses("[\"pieces\",1,\"reply\",\"two@dune.9.5\",null,null,1,9]\n", "needs a reference");
  refuses(FIRST("1"), "count and bytes");
  refuses(FIRST("1,134217729"), "larger than the limit");
  refuses(FIRST("1,99999999999999999999"), "count and bytes");
  refuses(FIRST("0,9"), "a value or more");
  refuses(FIRST("10,9"), "a value or more");
}

static void test_bad_pieces(void) {
  refuses(FIRST("1,9") "[\"piece\",1,2,5]\n", "not the next one");
  refuses(FIRST("2,9") "[\"piece\",1,1,5]\n[\"piece\",1,1,5]\n", "not the next one");
  refuses(FIRST("1,9") "[\"piece\",2,1,5]\n", "not the next one");
  refuses(FIRST("1,9") "[\"piece\",1]\n", "expected [\"piece\"");
  refuses(FIRST("1,9") "[\"piece\",1,1,5,6]\n", "all its values");
  refuses(FIRST("1,9") "[\"piece\",1,1,5]\n[\"piece\",1,2,5]\n", "all its values");
  refuses(FIRST("1,9") "[\"piece\",1,1,5\n", "expected , or ]");
  refuses(FIRST("1,9") "[\"piece\",1,1,x]\n", "");
  refuses(FIRST("1,9") "[\"piece\",1,1,\"half]\n", "does not end");
  refuses(FIRST("1,9") "[\"piece\",1,1,{\"$map\":[]}]\n", "no item");
  refuses(FIRST("1,9") "[\"piece\",1,1,{\"a\":1}]\n", "no item");
  refuses(FIRST("1,9") "[\"piece\",1,1,[10]]\n", "longer than its message");
  refuses(FIRST("1,9") "[\"piece\",1,1,[1,\"x\"]]\n", "kind of container");
  refuses(FIRST("1,9") "[\"piece\",1,1,[1,\"]\n", "expected [n]");
  refuses(FIRST("1,9") "[\"piece\",1,1,[-1]]\n", "expected [n]");
  refuses(FIRST("1,40") "[\"piece\",1,1,[1,\"m\"],5,5]\n", "has no place");
  refuses(FIRST("1,40") "[\"piece\",1,1,[1,\"p\"],null,5]\n", "has no place");
  refuses(FIRST("1,40") "[\"piece\",1,1,[1,\"m\"],[0],5]\n", "has no place");
  refuses(FIRST("1,4") "[\"piece\",1,1,\"longer\"]\n", "longer than it said");
  refuses(FIRST("1,9") "[\"piece\",1,1,[4,\"s\"],\"12345\"]\n", "longer than it said");
  refuses(FIRST("1,9") "[\"piece\",1,1,[4,\"s\"],5]\n", "expected bytes");
  refuses(FIRST("1,9") "[\"piece\",1,1,[4,\"s\"],\"\"]\n", "expected bytes");
  refuses(FIRST("1,9") "[\"piece\",1,1,[0,\"s\"]]\n", "empty");
  refuses(FIRST("1,9") "[\"piece\",1,1,[2,\"d\"],\"12345678\"]\n", "8 bytes");
  refuses(FIRST("1,9") "[\"piece\",1,1,[2,\"d\"]]\n", "expected numbers");
  refuses(FIRST("1,40") "[\"piece\",1,1,[2,\"d\"],\"1234567812345678\"]\n", "has no place");
}

static void test_too_deep(void) {
  struct buf lines = BUF_INIT;
  buf_puts(&lines, FIRST("1,99999") "[\"piece\",1,1");
  for (int i = 0; i < TERM_DEPTH_MAX + 9; i++) buf_puts(&lines, ",[1]");
  buf_puts(&lines, "]\n");
  refuses(lines.data, "nest more than");
  buf_finish(&lines);
}

static void test_unfinished(void) {
  struct buf lines = BUF_INIT;
  struct pieces_reader *r;
  struct error e = {0};
  struct counts c = {0};
  buf_puts(&lines, FIRST("1,90") "[\"piece\",1,1,[2],5]\n[\"piece\",1,2]\n");
  ok(!read_all(&lines, &r, &e, &c) && !pieces_whole(r), "a message that lacks values is not whole");
  pieces_free(r);
  buf_finish(&lines);
}

int main(void) {
  uint32_t two;
  here = nodetab_new("one@rane", 3);
  there = nodetab_new("two@dune", 5);
  if (!here || !there || nodetab_intern(here, "two@dune", 5, &two) || two != 1) return 1;
  test_round();
  test_deep();
  test_function();
  test_bad_first();
  test_bad_pieces();
  test_too_deep();
  test_unfinished();
  nodetab_free(here);
  nodetab_free(there);
  return tap_end();
}
