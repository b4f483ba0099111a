/* Invariant: output_read undoes output_message and output_put. */
#include "core/output.h"

#include <string.h>

void output_put(struct term_writer *w, const struct output *o) {
  term_put_text(w, o->is_stderr ? "stderr" : "stdout");
  term_put_pid(w, o->from);
  term_put_str(w, o->bytes, o->n);
}

struct term *output_message(const struct output *o) {
  struct term_writer w = TERM_WRITER_INIT;
  output_put(&w, o);
  struct term *t = term_from_writer(&w, OUTPUT_VALUES);
  term_writer_finish(&w);
  return t;
}

bool output_read(const struct term *message, struct output *out) {
  struct term_reader r = term_read(message);
  struct output o = {.is_stderr = term_is_word(message, "stderr")};
  if (!message || message->count != OUTPUT_VALUES || !(o.is_stderr || term_is_word(message, "stdout")))
    return false;
  term_skip(&r);
  if (!term_get_pid(&r, &o.from) || !term_get_str(&r, &o.bytes, &o.n)) return false;
  *out = o;
  return true;
}
