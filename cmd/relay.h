/* relay: passes what a process writes on to our own descriptors 1 and 2, unchanged and at once.
 *
 * Writes without stdio, so that the pieces of both streams keep their order.  When nobody reads any more,
 * SIGPIPE ends the program; any other failure is told and ends it with RELAY_FAILED.  Any thread; each call
 * writes its bytes as a whole. */
#ifndef CMD_RELAY_H
#define CMD_RELAY_H

#include "tool.h"

enum { RELAY_FAILED = 125 /* the own failure of a tool that ends as its command, as with timeout(1) */ };

void relay_bytes(int fd, const char *bytes, size_t n);

/* Writes all bytes to any descriptor.  0, or an errno. */
int relay_write(int fd, const char *bytes, size_t n) MUST_CHECK;

/* Passes on what a process has written to its standard output or error. */
void relay_output(bool is_stderr, const char *bytes, size_t n);

/* Prints an event as a line of JSON. */
void relay_event(const json_t *event);

#endif
