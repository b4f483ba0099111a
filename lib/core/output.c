/* Invariant: output_read undoes output_message and output_put. */
#include "core/output.h"

#include <string.h>

enum { BESIDE = 64 }; /* bytes that the other values take, at most */

void output_put(struct term_writer *w, const struct output *o) {
  term_put_text(w, o->is_stderr ? "stderr" : "stdout");
  term_put_pid(w, o->from);
  term_put_str(w, o->bytes, o->n);
  if (o->at) term_put_int(w, o->at);
}

struct term *output_message(const struct output *o) {
  struct term_writer w = TERM_WRITER_INIT;
  term_reserve(&w, o->n + BESIDE);
  output_put(&w, o);
  struct term *t = term_take_all(&w, output_values(o));
  term_writer_finish(&w);
  return t;
}

bool output_read(const struct term *message, struct output *out) {
  struct term_reader r = term_read(message);
  struct output o = {.is_stderr = term_is_word(message, "stderr")};
  if (!message || message->count < 3 || message->count > 4 ||
      !(o.is_stderr || term_is_word(message, "stdout")))
    return false;
  term_skip(&r);
  if (!term_get_pid(&r, &o.from) || !term_get_str(&r, &o.bytes, &o.n)) return false;
  if (message->count == 4 && (!term_get_int(&r, &o.at) || o.at <= 0)) return false;
  *out = o;
  return true;
}
