/* Invariant: output_read undoes output_message. */
#include "core/output.h"

#include <string.h>

struct term *output_message(const struct output *o) {
  struct term_writer w = TERM_WRITER_INIT;
  term_put_text(&w, o->is_stderr ? "stderr" : "stdout");
  term_put_pid(&w, o->from);
  term_put_str(&w, o->bytes, o->n);
  struct term *t = term_from_writer(&w, 3);
  term_writer_finish(&w);
  return t;
}

bool output_read(const struct term *message, struct output *out) {
  struct term_reader r = term_read(message);
  struct output o = {.is_stderr = term_is_word(message, "stderr")};
  if (!message || message->count != 3 || !(o.is_stderr || term_is_word(message, "stdout"))) return false;
  term_skip(&r);
  if (!term_get_pid(&r, &o.from) || !term_get_str(&r, &o.bytes, &o.n)) return false;
  *out = o;
  return true;
}
