/* output: the message by which a process hands what it prints to its group leader: ("stdout" | "stderr", the
 * process's pid, bytes), and from a command also the offset after the bytes in all of its output.  Any
 * thread. */
#ifndef CORE_OUTPUT_H
#define CORE_OUTPUT_H

#include "core/term.h"

struct output {
  bool is_stderr;
  npid from;
  const char *bytes; /* in the term that was read */
  size_t n;
  int64_t at; /* the offset after the bytes; 0: the message has none */
};

/* How many values the message has at the top. */
static inline uint32_t output_values(const struct output *o) {
  return o->at ? 4 : 3;
}

/* Writes the message's values to a writer that the caller already has. */
void output_put(struct term_writer *w, const struct output *o);

/* The message as a term: a new reference; NULL when memory ran out or the bytes are too many. */
struct term *output_message(const struct output *o);

/* Reads a message (NULL: none); false, with *out as it was, when it is not of this form. */
bool output_read(const struct term *message, struct output *out);

#endif
