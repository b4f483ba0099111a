/* frame: a signal as one line of JSON on the link between two nodes.
 *
 *   ["message", to, from, ref, values]\n     to, from, ref: "two@rane.57.3" or null; values: array or null
 *
 * The first string is signal_wire of the kind.  Long strings among the values themselves, not those within
 * lists and maps, are octets that follow the line, in the order of the values, `size` bytes together:
 *
 *   ["octets", size, "message", to, from, ref, values]\n…     a value: {"$octets":n}, for the next n of them
 *
 * A link also carries pieces of long signals (wire/pieces.h) and JSON objects (the hello, the names, beats,
 * the farewell): the mesh reads and writes these, not this module.  One owner, no locking. */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include "base/buf.h"
#include "base/err.h"
#include "core/signal.h"
#include "wire/json.h"

/* Bytes of one line: enough for a term of SIGNAL_LONG, of which a byte takes 40 as JSON where it is full of
 * pids with the longest names, and for the lines of the mesh.  Longer terms go in pieces (wire/pieces.h). */
enum { FRAME_MAX = 16 << 20 };

/* A shorter string is JSON. */
enum { FRAME_OCTETS_MIN = 1024 };

/* Appends the line, and its octets, to out.  0, or ERR_NOMEM with out as it was. */
int frame_write(const struct nodetab *nodes, const struct signal *s, struct buf *out) MUST_CHECK;

/* The state of reading from one peer. */
struct frames {
  struct nodetab *nodes;
  uint32_t peer;                   /* the peer's incarnation */
  struct term_writer writer;       /* keeps its memory from line to line */
  const char *octets, *octets_end; /* of the line that is being read, those that no value has got yet */
};
void frames_finish(struct frames *f);

/* How many octets follow a line of a link; SIZE_MAX: more than FRAME_MAX. */
size_t frame_octets(const char *line, size_t n);

/* Reads one line (without its newline, or with its octets); the signal is the caller's.  ERR_BAD_VALUE: the
 * line is not such an array; `from` is not a pid of the peer's incarnation, so a peer cannot speak for other
 * nodes; or `to` is not a pid of this node; or the octets are not those of its values.  Else the errors of
 * json_get_values. */
int frame_read(struct frames *f, const char *line, size_t n, struct signal **out, struct error *e) MUST_CHECK;

/* Parts of a frame, for pieces.c: `"kind", to, from, ref`, and whether a signal of this kind may have so many
 * values.  Errors as those of frame_read. */
void frame_put_head(const struct nodetab *nodes, const struct signal *s, struct buf *out);
int frame_read_head(struct frames *f, struct json_source *in, struct signal *s, struct error *e) MUST_CHECK;
int frame_check_values(const struct signal *s, uint32_t count, struct error *e) MUST_CHECK;

#endif
