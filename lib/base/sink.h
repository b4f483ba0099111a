/* sink: a bounded queue of log lines and console output, which a thread of its own writes to a terminal, a
 * pipe or a file.  No caller ever waits for the terminal, pipe or file.
 *
 * Bytes are written in the order in which they were put.  When more bytes of a kind wait than its bound, or
 * when writing fails (a full disk), bytes are lost, and counted.  As soon as there is room again (half of the
 * bound is free; for a full disk: within SINK_RETRY_MS), a line at the place of the gap reports the loss:
 *
 *   node-start: 12 lines and 4096 bytes of output lost: too much waits to be written
 *
 * Functions may be called by any thread, unless they say otherwise. */
#ifndef BASE_SINK_H
#define BASE_SINK_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  SINK_WAIT_MS = 100,   /* how often a thread that cannot write checks whether it must end */
  SINK_PATIENCES = 4,   /* sink_flush waits at most this many times its patience_ms */
  SINK_RETRY_MS = 1000, /* how often the writing thread tries a full disk again */
};

enum sink_kind {
  SINK_LOG,    /* whole lines; the loss is counted in lines */
  SINK_OUTPUT, /* bytes of processes */
  SINK_KINDS
};

struct sink_config {
  const char *prefix;     /* begins the line that reports a loss; borrowed */
  size_t max[SINK_KINDS]; /* bytes that may wait */
  int fd;           /* where to write, owned by the caller; -1: all bytes are dropped, and not counted */
  const char *path; /* where to write instead: a file to append to (base/outlet.h); NULL: fd */
  int64_t file_max; /* bytes that this file may have */
};

struct sink;

/* Opens the file, and starts the thread.  ERR_NOMEM, ERR_SYSTEM. */
int sink_new(const struct sink_config *config, struct sink **out, struct error *e) MUST_CHECK;

/* Waits as sink_flush does, and ends the thread.  When the thread is blocked in a write, this function does
 * not wait for it: the thread frees the sink when the write returns.  Accepts NULL. */
void sink_free(struct sink *s, int patience_ms);

/* Takes a copy of the bytes.  Bytes of SINK_LOG are one line, with its newline. */
void sink_put(struct sink *s, enum sink_kind kind, const char *bytes, size_t n);

/* Waits until everything is written.  Returns false when no byte was written for patience_ms, and after
 * SINK_PATIENCES * patience_ms in any case.  The I/O thread must not call it while it serves requests. */
bool sink_flush(struct sink *s, int patience_ms);

/* Makes the writing thread open the file again by its path; when that fails, a line in the old file reports
 * it. */
void sink_reopen(struct sink *s);

/* Makes descriptors 1 and 2 copies of the file.  Only for a sink with a path. */
void sink_take_standard(struct sink *s);

/* The absolute path of the file; NULL: there is none.  Valid as long as the sink. */
const char *sink_path(const struct sink *s);

/* room(data) runs on the sink's thread, with the sink locked (so it must not call the sink), each time that
 * the waiting bytes of SINK_OUTPUT fall to `low`.  With room NULL, the function is not called any more, and
 * no call of it runs when sink_on_room has returned. */
void sink_on_room(struct sink *s, size_t low, void (*room)(void *data), void *data);

struct sink_stats {
  size_t waiting[SINK_KINDS];     /* bytes */
  uint64_t lost_lines;            /* of SINK_LOG, since the start */
  uint64_t lost_bytes;            /* of SINK_OUTPUT, since the start */
  uint64_t lost_puts[SINK_KINDS]; /* how often something was lost because too much waited */
  int64_t progress_ns;            /* clock_ns when something was last written or lost */
};
void sink_stats(struct sink *s, struct sink_stats *out);

#endif
