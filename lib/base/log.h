/* log: the agent's log.  log_line writes "node-start: text\n" to a descriptor.  Any thread.  Nothing else in
 * lib/ prints. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

struct log {
  int fd;             /* -1: silent */
  const char *prefix; /* borrowed */
};

void log_line(const struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
