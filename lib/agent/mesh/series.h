/* series: the long signals of a link, which go in pieces (wire/pieces.h) between the frames of other signals.
 * A piece is encoded and decoded by a thread of libuv's pool, one piece of a signal at a time; this node
 * sends only so many bytes of pieces ahead of what the peer has decoded:
 *
 *   {"taken": [id, bytes]}     the peer has decoded so many bytes more of the lines of a series
 *
 * So a short signal waits behind SERIES_WINDOW bytes and a piece of each series at most, and neither node
 * holds more JSON text than that.  I/O thread only. */
#ifndef AGENT_MESH_SERIES_H
#define AGENT_MESH_SERIES_H

#include "base/map.h"
#include "core/signal.h"
#include "wire/pieces.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  SERIES_MAX = 16,           /* series of a direction that are under way; the others wait for their turn */
  SERIES_WINDOW = 512 << 10, /* bytes of pieces that the peer has not decoded, of all series together; each
                                series may have one piece more */
  /* A peer whose undecoded pieces of one series are more has not heeded the window. */
  SERIES_UNREAD_MAX = SERIES_WINDOW + 2 * PIECE_LINE_MAX,
  SERIES_LATER_HIGH =
      4 << 20, /* bytes of signals that wait behind series: from here on senders are suspended */
};

struct peer;
struct sending;
struct receiving;

struct series {                       /* of a peer; zeroed: none */
  struct sending *sends;              /* those that have begun, in the order of their turns; */
  unsigned sending;                   /* how many */
  struct sending *waits, **waits_end; /* those that have not begun, oldest first */
  struct map by_sender;               /* those that are not sent completely, by order_key */
  uint32_t sent;                      /* the id of the last one that has begun */
  size_t flying;                      /* bytes of pieces that the peer has not decoded, */
  unsigned encoding;                  /* and pieces that are being encoded */
  size_t held;                        /* weight of all signals that have not been sent completely, */
  size_t later;                       /* and of those whose senders are not suspended meanwhile */
  bool busy;                          /* either is too much */
  struct receiving *receives;         /* in the order in which they began; */
  unsigned receiving;                 /* how many */
  uint32_t received;                  /* the id of the last one */
};

/* True for a signal from one kernel to another: it keeps no order with other signals, and passes them. */
bool series_is_free(const struct signal *s);

/* Sends a signal (consumed) of a peer that is up or syncing: at once, or in pieces, or behind the pieces of
 * an earlier signal of its sender. */
void series_send(struct peer *p, struct signal *s);

/* Hands a signal that has arrived to the user, behind earlier signals of its sender. */
void series_deliver(struct peer *p, struct signal *s);

/* Handle a line of the peer, and the value of {"taken": …}.  0, or the code with which the link is lost. */
int series_take_first(struct peer *p, const char *line, size_t n) MUST_CHECK;
int series_take_piece(struct peer *p, uint32_t id, const char *line, size_t n) MUST_CHECK;
int series_take_taken(struct peer *p, const json_t *value) MUST_CHECK;

/* No long signal is under way, in either direction. */
bool series_idle(const struct peer *p);
/* Does no signal go to the peer in pieces, and does none wait behind one? */
bool series_sends_none(const struct peer *p);

/* The link is lost: drops all series, and the signals behind them. */
void series_drop(struct peer *p);

#endif
