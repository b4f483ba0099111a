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

/* Bounds the lines about one thing, which may be more than anybody reads: LOG_BURST a minute.  Zeroed at
 * first; one owner, no locking.  now_ms is a monotonic clock. */
enum { LOG_BURST = 20, LOG_BURST_MS = 60000 };
struct log_limit {
  int64_t begun_ms;
  unsigned lines, left_out;
};

/* May one more line be logged?  If not, it is counted as left out. */
bool log_admits(struct log_limit *l, int64_t now_ms);

/* How many lines were left out in a minute that is over, for a line that says so; 0: none, or the minute is
 * not over.  To be asked from time to time, since no line is admitted before that. */
unsigned log_left_out(struct log_limit *l, int64_t now_ms);

#endif
