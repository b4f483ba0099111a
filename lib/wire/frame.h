/* frame: a signal as one line of NDJSON on a link between two nodes, and back.
 *
 *   ["message", to, from, ref, values]\n     to, from, ref: "two@rane.57.3" or null; values: array or null
 *
 * Kinds are signal_wire's.  An empty line is a heartbeat.  The first line of a link is the hello, an object
 * (agent/link.h). */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include "base/buf.h"
#include "base/err.h"
#include "core/signal.h"

enum { FRAME_MAX = 256 << 20 }; /* bytes of one line: a full term in base64, with room */

/* Appends the line to out. 0 or ERR_NOMEM (out is then as before). */
int frame_write(const struct nodetab *nodes, const struct signal *s, struct buf *out) MUST_CHECK;

/* What is read from one peer. */
struct frames {
  struct nodetab *nodes;
  uint32_t peer;             /* its incarnation */
  struct term_writer writer; /* scratch */
};
void frames_finish(struct frames *f);

/* Reads one line (without its newline). `from` must be a pid of the peer's incarnation and `to` one of this
 * node's: anything else is ERR_BAD_VALUE, so a peer cannot speak for others.  The signal is the caller's. */
int frame_read(struct frames *f, const char *line, size_t n, struct signal **out, struct error *e) MUST_CHECK;

#endif
