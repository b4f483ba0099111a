/* outlet: where a sink writes: a descriptor that belongs to somebody else (a terminal, a pipe), or a file of
 * its own, which is bounded and can be opened again.
 *
 * A file never has more than `max` bytes: before a write would exceed that, the file is renamed to FILE.1,
 * which replaces an older FILE.1, and a new file is begun.  One thread calls outlet_write and outlet_reopen;
 * another may call outlet_take_standard. */
#ifndef BASE_OUTLET_H
#define BASE_OUTLET_H

#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct outlet {
  int fd;     /* changed by the writing thread, with `swap` locked */
  char *path; /* absolute; NULL: fd belongs to somebody else */
  int64_t size, max;
  bool plain;           /* a regular file: writing to it waits for no reader */
  bool standard;        /* descriptors 1 and 2 are copies of fd; changed with `swap` locked */
  pthread_mutex_t swap; /* keeps descriptors 1 and 2 copies of fd */
};

void outlet_borrow(struct outlet *o, int fd);

/* Opens the file for appending; makes it, with mode 0600, when it does not exist.  ERR_NOMEM, ERR_SYSTEM. */
int outlet_open(struct outlet *o, const char *path, int64_t max, struct error *e) MUST_CHECK;

void outlet_close(struct outlet *o);

/* Opens the file again by its path, which may lead to another file by now.  0, or an errno: the old file
 * stays in use.  Does nothing for a borrowed descriptor. */
int outlet_reopen(struct outlet *o);

/* Makes descriptors 1 and 2 copies of the file, now and whenever it is opened again. */
void outlet_take_standard(struct outlet *o);

/* Writes some of the bytes (n > 0), ending at a line's end where possible.  Returns how many were written, 0
 * when there was no room for wait_ms, or a negative errno.  May block nevertheless: when other processes
 * write to the same terminal or pipe, and when the server of a network file system does not answer. */
ssize_t outlet_write(struct outlet *o, const char *bytes, size_t n, int wait_ms);

#endif
