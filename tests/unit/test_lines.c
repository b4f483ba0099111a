#include "wire/lines.h"

#include "tap.h"

#include <stdlib.h>

struct seen {
  struct buf text; /* each line, then '|' */
  size_t stop_at;  /* the callback stops at a line of this length */
  int unterminated;
};

static int on_line(void *data, char *text, size_t n) {
  struct seen *s = data;
  s->unterminated += text[n] != 0;
  buf_append(&s->text, text, n);
  buf_putc(&s->text, '|');
  return n == s->stop_at ? 77 : 0;
}

/* The lines are the same wherever the stream is cut into pieces. */
static void test_cuts(void) {
  const char stream[] = "one\n\nthree and more\nlast\nunfinished";
  int wrong = 0;
  for (size_t cut = 1; cut < sizeof stream; cut++) {
    struct lines l;
    struct seen s = {.stop_at = SIZE_MAX};
    lines_init(&l, 14);
    for (size_t at = 0; at < sizeof stream - 1; at += cut) {
      size_t n = sizeof stream - 1 - at < cut ? sizeof stream - 1 - at : cut;
      wrong += lines_split(&l, stream + at, n, on_line, &s) != 0;
    }
    wrong +=
        strcmp(s.text.data, "one||three and more|last|") != 0 || strcmp(l.pending.data, "unfinished") != 0;
    wrong += s.unterminated;
    buf_finish(&s.text);
    lines_finish(&l);
  }
  ok(!wrong, "the same lines from pieces of every size");
}

/* As many octets follow a line as its number says. */
static size_t number_of(const char *line, size_t n) {
  return n && *line == '#' ? strtoul(line + 1, NULL, 10) : 0;
}

static int on_octets(void *data, char *text, size_t n) {
  struct seen *s = data;
  buf_append(&s->text, text, n);
  buf_putc(&s->text, '|');
  return 0;
}

static void test_octets(void) {
  static const char stream[] = "one\n#5\n\n#9\n\0two\n#1\nx#3\nab";
  static const char seen[] = "one|#5\n\n#9\n\0|two|#1\nx|";
  int wrong = 0;
  for (size_t cut = 1; cut < sizeof stream; cut++) {
    struct lines l;
    struct seen s = {0};
    lines_init(&l, 9);
    l.octets = number_of;
    for (size_t at = 0; at < sizeof stream - 1; at += cut) {
      size_t n = sizeof stream - 1 - at < cut ? sizeof stream - 1 - at : cut;
      wrong += lines_split(&l, stream + at, n, on_octets, &s) != 0;
    }
    wrong += s.text.len != sizeof seen - 1 || memcmp(s.text.data, seen, sizeof seen - 1) != 0;
    wrong += l.pending.len != 5 || l.whole != 6;
    buf_finish(&s.text);
    lines_finish(&l);
  }
  ok(!wrong, "octets behind lines, from pieces of every size; too few wait for the rest");
  struct lines l;
  struct seen s = {0};
  lines_init(&l, 9);
  l.octets = number_of;
  ok(lines_split(&l, "#10\n", 4, on_octets, &s) == ERR_TOO_LARGE && !s.text.len && !l.pending.len,
     "too many are refused before they come");
  lines_finish(&l);
}

static void test_bounds(void) {
  struct lines l;
  struct seen s = {.stop_at = SIZE_MAX};
  lines_init(&l, 4);
  ok(lines_split(&l, "1234\n12345\n", 11, on_line, &s) == ERR_TOO_LARGE, "a line beyond the limit");
  is(s.text.data, "1234|", "what came before it was read");
  lines_finish(&l), lines_init(&l, 4);
  ok(lines_split(&l, "1234", 4, on_line, &s) == 0 && lines_split(&l, "5", 1, on_line, &s) == ERR_TOO_LARGE,
     "an unfinished line beyond the limit need not end to be refused");
  lines_finish(&l);
  buf_finish(&s.text);
}

static void test_stop(void) {
  struct lines l;
  struct seen s = {.stop_at = 2};
  lines_init(&l, 10);
  ok(lines_split(&l, "a\nbb\nc\n", 7, on_line, &s) == 77, "what the callback returns stops it");
  is(s.text.data, "a|bb|", "and nothing after that line is called");
  ok(l.pending.len == 0, "nor kept");
  lines_finish(&l);
  buf_finish(&s.text);
}

static void test_memory(void) {
  enum { HUGE_LINE = 1 << 20 };
  struct lines l;
  struct seen s = {.stop_at = SIZE_MAX};
  char *big = malloc(HUGE_LINE);
  memset(big, 'x', HUGE_LINE);
  big[HUGE_LINE - 1] = '\n';
  lines_init(&l, HUGE_LINE);
  ok(lines_split(&l, big, HUGE_LINE, on_line, &s) == 0 && s.text.len == HUGE_LINE &&
         l.pending.cap < HUGE_LINE,
     "a huge line's memory is given back");
  free(big);
  lines_finish(&l);
  buf_finish(&s.text);
}

int main(void) {
  test_cuts();
  test_octets();
  test_bounds();
  test_stop();
  test_memory();
  return tap_end();
}
