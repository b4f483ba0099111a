#include "wire/octets.h"

#include "tap.h"

#include <string.h>

struct seen {
  struct buf documents, out, err; /* each document, then '|' */
  int stop;                       /* what the callbacks return */
  int unterminated;
};

static int on_document(void *data, char *text, size_t n) {
  struct seen *s = data;
  s->unterminated += text[n] != 0;
  buf_append(&s->documents, text, n);
  buf_putc(&s->documents, '|');
  return s->stop;
}

static int on_bytes(void *data, bool is_stderr, const char *bytes, size_t n) {
  struct seen *s = data;
  buf_append(is_stderr ? &s->err : &s->out, bytes, n);
  return s->stop;
}

static const struct octets_events events = {on_document, on_bytes};

static void seen_finish(struct seen *s) {
  buf_finish(&s->documents);
  buf_finish(&s->out);
  buf_finish(&s->err);
}

static struct buf example(void) {
  struct buf b = BUF_INIT;
  octets_put(&b, OCTETS_DOCUMENT, "{\"pid\":1}", 9);
  octets_put(&b, OCTETS_STDOUT, "a\0b\n", 4);
  octets_put(&b, OCTETS_STDERR, "", 0);
  octets_put(&b, OCTETS_STDERR, "warn", 4);
  octets_put(&b, OCTETS_STDOUT, "cd", 2);
  octets_put(&b, OCTETS_DOCUMENT, "", 0);
  octets_put(&b, OCTETS_DOCUMENT, "{}", 2);
  return b;
}

/* The records are the same wherever the stream is cut into pieces. */
static void test_cuts(void) {
  struct buf b = example();
  int wrong = 0;
  for (size_t cut = 1; cut <= b.len; cut++) {
    struct octets o;
    struct seen s = {0};
    octets_init(&o, 9);
    for (size_t at = 0; at < b.len; at += cut)
      wrong += octets_split(&o, b.data + at, b.len - at < cut ? b.len - at : cut, &events, &s) != 0;
    wrong += strcmp(s.documents.data, "{\"pid\":1}||{}|") != 0 || s.out.len != 6 ||
             memcmp(s.out.data, "a\0b\ncd", 6) != 0 || s.err.len != 4 || octets_inside(&o) || s.unterminated;
    seen_finish(&s);
    octets_finish(&o);
  }
  ok(!wrong, "the same records from pieces of every size");
  buf_finish(&b);
}

static void test_bounds(void) {
  struct octets o;
  struct seen s = {0};
  octets_init(&o, 8);
  ok(octets_split(&o, "J\0\0\0\x09", 5, &events, &s) == ERR_TOO_LARGE, "a document beyond the limit");
  octets_finish(&o), octets_init(&o, 8);
  ok(octets_split(&o, "HTTP/", 5, &events, &s) == ERR_VERSION, "a kind that is not known");
  octets_finish(&o), octets_init(&o, 8);
  ok(octets_split(&o,
                  "O\xff\xff\xff\xff"
                  "x",
                  6, &events, &s) == 0 &&
         s.out.len == 1,
     "bytes of a record of 4 GiB are passed on as they come");
  ok(octets_inside(&o), "and its end is missed");
  octets_finish(&o);
  seen_finish(&s);
}

static void test_stop(void) {
  struct buf b = example();
  struct octets o;
  struct seen s = {.stop = 77};
  octets_init(&o, 9);
  ok(octets_split(&o, b.data, b.len, &events, &s) == 77, "what a callback returns stops it");
  ok(!s.out.len, "and nothing after that record is called");
  octets_finish(&o);
  seen_finish(&s);
  buf_finish(&b);
}

int main(void) {
  test_cuts();
  test_bounds();
  test_stop();
  return tap_end();
}
