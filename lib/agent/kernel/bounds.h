/* bounds: the kernel's call "limits": the bounds of this node (core/limits.h), with what is in use now and
 * how often each was hit.  I/O thread only. */
#ifndef AGENT_KERNEL_BOUNDS_H
#define AGENT_KERNEL_BOUNDS_H

#include "agent/state.h"
#include "core/signal.h"

struct mesh_use;
struct metrics;

/* ["limits"] -> LIST of rows, one for each bound.  A row is a LIST: name, unit ("count" or "bytes"), the
 * bound (0: none), what is in use (-1: not known), how often it was hit.  Consumes the call, and answers it
 * later: the greatest process is sought by a thread of the pool.  In use is: of a bound of the node, all; of
 * one for each process, client or peer, the greatest. */
void bounds_op(struct agent *a, struct signal *call, struct term_reader args);

/* Writes the metrics of each bound; largest is what vm_find_largest has found, and mesh what mesh_metrics has
 * added up. */
void bounds_metrics(struct agent *a, const struct vm_largest *largest, const struct mesh_use *mesh,
                    struct metrics *out);

struct bounds_row {
  const char *name, *unit; /* not NUL-terminated */
  size_t name_len, unit_len;
  int64_t max, used, refused;
};

/* Reads a row of an answer; false when it is malformed. */
bool bounds_read(struct term_reader *r, struct bounds_row *out);

#endif
