/* log: the agent's log.  log_line puts "PREFIX: text\n" into a sink, which a thread of its own writes.  Any
 * thread, and it never blocks.  Nothing else in lib/ prints. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/sink.h"

enum { LOG_LINE_MAX = 4096 }; /* bytes of a line, with prefix and newline: a pipe takes it in one piece */

struct log {
  struct sink *sink;  /* borrowed; NULL: silent */
  const char *prefix; /* borrowed */
};

/* The text is escaped (text_escape in base/text.h), so it may contain text of peers and clients; a line that
 * is too long ends in "...". */
void log_line(const struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
