/* Invariant: reason_status undoes reason_exit. */
#include "core/reason.h"

#include <string.h>

struct term *reason_word(const char *word) {
  return term_build("s", word);
}

struct term *reason_exit(int64_t status, int signal) {
  if (!signal && !status) return reason_word("normal");
  struct term_writer w = TERM_WRITER_INIT;
  size_t at = term_open(&w, TERM_LIST);
  term_put_text(&w, signal ? "signal" : "exit");
  term_put_int(&w, signal ? signal : status);
  term_set_count(&w, at, 2);
  struct term *t = term_from_writer(&w, 1);
  term_writer_finish(&w);
  return t;
}

int reason_status(const struct term *reason) {
  static const struct {
    const char *word;
    int status;
  } words[] = {{"normal", 0},   {"shutdown", 143}, {"kill", 137},
               {"killed", 137}, {"timeout", 124},  {"noconnection", 125}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (term_is_word(reason, words[i].word)) return words[i].status;
  struct term_reader r = term_read(reason);
  struct term_value list = term_next(&r);
  const char *word;
  size_t len;
  int64_t n;
  if (list.tag != TERM_LIST || list.count < 2 || !term_get_str(&r, &word, &len) || !term_get_int(&r, &n))
    return 1;
  return len == 6 && !memcmp(word, "signal", 6) ? (int)(128 + n) : (int)(n & 255);
}
