/* output: the message by which a process hands what it prints to its group leader: ("stdout" | "stderr", the
 * process's pid, bytes).  Any thread. */
#ifndef CORE_OUTPUT_H
#define CORE_OUTPUT_H

#include "core/term.h"

struct output {
  bool is_stderr;
  npid from;
  const char *bytes; /* in the term that was read */
  size_t n;
};

enum { OUTPUT_VALUES = 3 }; /* at the top of the message */

/* Writes the message's values to a writer that the caller already has. */
void output_put(struct term_writer *w, const struct output *o);

/* The message as a term: a new reference; NULL when memory ran out or the bytes are too many. */
struct term *output_message(const struct output *o);

/* Reads a message (NULL: none); false, with *out as it was, when it is not of this form. */
bool output_read(const struct term *message, struct output *out);

#endif
