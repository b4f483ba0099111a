/* The words of a command: empty words, blanks within words, and cuts. */
#include "core/words.h"
#include "tap.h"

#include <string.h>

static bool is_line(struct words w, const char *want) {
  struct buf line = BUF_INIT;
  words_line(w.text, w.n, &line);
  bool same = line.data && !strcmp(line.data, want) && line.len == strlen(want);
  buf_finish(&line);
  return same;
}

/* The words with a bar behind each. */
static bool are(struct words w, const char *want) {
  struct buf text = BUF_INIT;
  size_t at = 0, n;
  const char *word;
  while ((word = words_next(w.text, w.n, &at, &n))) {
    buf_append(&text, word, n);
    buf_putc(&text, '|');
  }
  bool same = text.data && !strcmp(text.data, want);
  buf_finish(&text);
  return same;
}

static struct words make(const char *name, size_t max, char *first, char *second, char *third) {
  char *argv[] = {first, second, third, NULL};
  return words_make(name, argv, max);
}

int main(void) {
  const struct {
    size_t max;
    const char *name;
    char *argv[3];
    const char *words, *line;
  } cases[] = {
      {99, "ls", {"/bin/ls", "-l"}, "ls|-l|", "ls -l"},
      {99, "a b", {"", "", "*"}, "a b||*|", "a b  *"},
      {99, "", {""}, "|", ""},
      {5, "ls", {"", "-l"}, "ls|-l|", "ls -l"},
      {4, "ls", {"", "-l"}, "ls|-|", "ls -"},
      {3, "ls", {"", "-l"}, "ls|", "ls"},
      {4, "gr\xC3\xBC\xC3\x9F", {""}, "gr\xC3\xBC|", "gr\xC3\xBC"},
      {5, "gr\xC3\xBC\xC3\x9F", {"", "x"}, "gr\xC3\xBC|", "gr\xC3\xBC"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct words w = make(cases[i].name, cases[i].max, cases[i].argv[0], cases[i].argv[1], cases[i].argv[2]);
    struct words copy = words_copy(w);
    ok(are(w, cases[i].words) && is_line(w, cases[i].line), "%s in %zu bytes", cases[i].words, cases[i].max);
    ok(words_are(w.text, w.n) && are(copy, cases[i].words), "… is a block, and so is its copy");
    words_finish(&w);
    words_finish(&copy);
    ok(!w.text && !w.n, "… and is empty once it is finished");
  }
  ok(!words_are("thread", 6) && !words_are("", 0), "other texts are no blocks");
  ok(is_line((struct words){"one", 3}, "one"), "the line of another text is that text");
  return tap_end();
}
