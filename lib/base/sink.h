/* sink: a bounded queue of log lines and console output, which a thread of its own writes to a terminal, a
 * pipe or a file.  No caller ever waits for what takes the bytes.
 *
 * What is put is written in the order in which it was put.  When a kind has more than its bound waiting, or
 * writing fails (a full disk), what is put is lost, and counted.  As soon as there is room again (half of the
 * bound; for a full disk: within SINK_RETRY_MS) a line at the place of the gap tells of it:
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
  SINK_WAIT_MS = 100,   /* how often the writing thread looks whether it must end, while nothing is taken */
  SINK_PATIENCES = 4,   /* sink_flush takes at most so many times its patience */
  SINK_RETRY_MS = 1000, /* how often it looks whether a full disk has room */
};

enum sink_kind {
  SINK_LOG,    /* whole lines; the loss is counted in lines */
  SINK_OUTPUT, /* bytes of processes */
  SINK_KINDS
};

struct sink_config {
  const char *prefix;     /* begins the line that tells of a loss; borrowed */
  size_t max[SINK_KINDS]; /* bytes that may wait */
  int fd;                 /* where to write, which stays the caller's; -1: what is put is dropped uncounted */
  const char *path;       /* where to write instead: a file to append to (base/outlet.h); NULL: fd */
  int64_t file_max;       /* bytes that this file may have */
};

struct sink;

/* Opens the file, and starts the thread.  ERR_NOMEM, ERR_SYSTEM. */
int sink_new(const struct sink_config *config, struct sink **out, struct error *e) MUST_CHECK;

/* Waits as sink_flush does, and ends the thread.  A thread that a write holds is abandoned; it frees the sink
 * when that write returns.  Accepts NULL. */
void sink_free(struct sink *s, int patience_ms);

/* Takes a copy of the bytes.  Those of SINK_LOG are one line, with its newline. */
void sink_put(struct sink *s, enum sink_kind kind, const char *bytes, size_t n);

/* Waits until everything is written; gives up, with false, when nothing was taken for patience_ms, or
 * after SINK_PATIENCES times as long.  Not for
 * the I/O thread while it serves. */
bool sink_flush(struct sink *s, int patience_ms);

/* Has the file opened again by its path, soon; when that fails, a line in the old file says so. */
void sink_reopen(struct sink *s);

/* Makes descriptors 1 and 2 copies of the file.  Only for a sink with a path. */
void sink_take_standard(struct sink *s);

/* The absolute path of the file; NULL: there is none.  Valid as long as the sink. */
const char *sink_path(const struct sink *s);

/* room(data) runs on the sink's thread, with the sink locked (so it must not call the sink), each time that
 * the waiting bytes of SINK_OUTPUT fall to `low`.  NULL: no more; when the function has returned, none runs.
 */
void sink_on_room(struct sink *s, size_t low, void (*room)(void *data), void *data);

struct sink_stats {
  size_t waiting[SINK_KINDS]; /* bytes */
  uint64_t lost_lines;        /* of SINK_LOG, since the start */
  uint64_t lost_bytes;        /* of SINK_OUTPUT, since the start */
  int64_t progress_ns;        /* clock_ns when something was last written or lost */
};
void sink_stats(struct sink *s, struct sink_stats *out);

#endif
