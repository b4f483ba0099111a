/* pieces: a signal with a long term as many lines of JSON on the link between two nodes, so that other lines
 * may go between them, and neither node ever holds the JSON text of the whole term.
 *
 *   ["pieces", id, "message", to, from, ref, count, bytes]   begins a series; the term has `count` values at
 *                                                            the top, and `bytes` bytes (core/term.h)
 *   ["piece", id, number, item, …]                           numbers from 1 on
 *
 * The items of all pieces are the values of the term in the order of the term, which is that of a walk where
 * a container comes before its elements:
 *
 *   null 12 1.5 "text" {"$pid":…} {"$bytes":…} {"$float":…} {"$fn":…}     a value, as in json.h
 *   [n]  [n,"m"]  [n,"p"]   a LIST of n values, a MAP or a TABLE of n pairs: its values are the next items
 *   [n,"s"]  [n,"f"]        a STR or FN of n bytes: the next items are strings, which have its bytes
 *   [n,"d"]                 n FLOATs: the next item is a string with their 8 n bytes, IEEE 754 with the least
 *                           significant byte first
 *
 * A series ends with the piece that has its last item.  Ids count the series of one direction of a link, from
 * 1 on.  The writer and the reader of a series belong to one thread at a time. */
#ifndef WIRE_PIECES_H
#define WIRE_PIECES_H

#include "wire/frame.h"

enum {
  PIECE_SIZE = 64 << 10,      /* a piece ends with the item at which it is as long as this */
  PIECE_LINE_MAX = 512 << 10, /* bytes of the line of a piece */
};

/* --- writing --- */

struct pieces_writer {
  const struct nodetab *nodes;
  uint32_t id, number; /* number: of the last piece */
  struct term_reader r;
  const char *rest; /* of a string that is being written */
  size_t rest_len;
};

/* Appends the first line to out and begins the series; the signal's term (not NULL) must stay until the end.
 * buf_ok tells whether memory sufficed, as for pieces_put. */
void pieces_begin(struct pieces_writer *p, const struct nodetab *nodes, uint32_t id, const struct signal *s,
                  struct buf *out);
/* Appends the next piece.  True when it was the last one. */
bool pieces_put(struct pieces_writer *p, struct buf *out);

/* --- reading --- */

struct pieces_reader;

/* Is the line the first of a series, or a piece?  Stores the id of a piece. */
bool pieces_is_first(const char *line, size_t n);
bool pieces_is_piece(const char *line, size_t n, uint32_t *id);

/* Reads the first line (without its newline) of the series `id`.  The reader keeps the signal, without its
 * term.  ERR_BAD_VALUE (also: another id), ERR_TOO_LARGE (bytes is more than TERM_SIZE_MAX), ERR_NOMEM. */
int pieces_open(struct frames *f, const char *line, size_t n, uint32_t id, struct pieces_reader **out,
                struct error *e) MUST_CHECK;
void pieces_free(struct pieces_reader *p); /* accepts NULL */

/* Reads the next piece; after an error the reader can only be freed.  ERR_BAD_VALUE: not such a line, of
 * another series, not the next one, or values that do not fit together; else the errors of json_get_value. */
int pieces_read(struct pieces_reader *p, const char *line, size_t n, struct error *e) MUST_CHECK;

/* Have all values been read?  The signal is then complete. */
bool pieces_whole(const struct pieces_reader *p);
const struct signal *pieces_signal(const struct pieces_reader *p);

/* Takes the complete signal: the caller's. */
struct signal *pieces_take(struct pieces_reader *p);

#endif
