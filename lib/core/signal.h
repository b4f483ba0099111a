/* signal: what one process sends to another.  Everything that reaches a process, from its own isolate,
 * another thread, the shell or another node, is a signal that was given to vm_deliver.  The kinds mean what
 * the Erlang reference manual says in "Processes: Signals"; CALL and REPLY are added for calls of a node's
 * kernel.
 *
 * Signals from one process to another arrive in the order in which they were sent.
 *
 * An inbox takes signals from one thread to another: many writers, one reader, no lock, no bound of its own
 * (senders look at `bytes`). */
#ifndef CORE_SIGNAL_H
#define CORE_SIGNAL_H

#include "core/npid.h"
#include "core/term.h"

#include <stdatomic.h>
#include <stdbool.h>

/* clang-format off */
/*  kind               wire name      ref           term */
#define SIGNAL_TABLE(X)                                                                                      \
  X(SIGNAL_MESSAGE,    "message")     /* -, alias [1]  the message's values */                               \
  X(SIGNAL_URGENT,     "urgent")      /* -             the message's values; it overtakes messages */        \
  X(SIGNAL_EXIT,       "exit")        /* -             [reason]: a call of exit(pid, reason) */              \
  X(SIGNAL_LINK_EXIT,  "link_exit")   /* -             [reason]: a linked process ended */                   \
  X(SIGNAL_LINK,       "link")        /* -             - */                                                  \
  X(SIGNAL_UNLINK,     "unlink")      /* the unlink    - */                                                  \
  X(SIGNAL_UNLINK_ACK, "unlink_ack")  /* the unlink    -: acknowledges the UNLINK with this ref */           \
  X(SIGNAL_MONITOR,    "monitor")     /* the monitor   - */                                                  \
  X(SIGNAL_DEMONITOR,  "demonitor")   /* the monitor   - */                                                  \
  X(SIGNAL_DOWN,       "down")        /* the monitor   [reason] */                                           \
  X(SIGNAL_LEADER,     "leader")      /* -             [pid]: the new group leader */                        \
  X(SIGNAL_CALL,       "call")        /* the call      [op, arguments…]; without a ref there is no reply */  \
  X(SIGNAL_REPLY,      "reply")       /* the call      [true, values…] or [false, wire name, text] */        \
  X(SIGNAL_SPAWN,      NULL)          /* the call      [spec]; inside the vm only */                         \
  X(SIGNAL_NODEDOWN,   NULL)          /* -             [reason]; `from` is the kernel of the lost node */    \
  X(SIGNAL_ROOM,       NULL)          /* -             -: `from` has room for messages again */
/* clang-format on */
/* [1] To the kernel of another node, for the process that the alias of that node stands for. */

/* A signal whose term has more bytes goes to another node in pieces (wire/pieces.h). */
enum { SIGNAL_LONG = 64 << 10 };

enum signal_kind {
#define X(kind, wire) kind,
  SIGNAL_TABLE(X)
#undef X
      SIGNAL_KINDS
};

struct signal {
  struct signal *next;
  npid to;
  npid from; /* NPID_NONE: no process sent it */
  npid ref;  /* NPID_NONE: the kind has none */
  struct term *term;
  uint32_t epoch; /* of the connection that carries the signal (nodetab_epoch); 0: none, or not yet set */
  uint8_t kind;
};

/* A signal that takes over the caller's reference to term (which may be NULL).  NULL when memory ran out; the
 * reference is then still the caller's. */
struct signal *signal_new(enum signal_kind kind, npid to, npid from, npid ref, struct term *term);
void signal_free(struct signal *s); /* accepts NULL */
/* Frees signals that are linked by `next`; s: the first of them, or NULL. */
void signals_free(struct signal *s);

/* The bytes that a signal counts against bounds. */
static inline size_t signal_weight(const struct signal *s) {
  return sizeof *s + (s->term ? sizeof *s->term + s->term->size : 0);
}

static inline bool signal_is_long(const struct signal *s) {
  return s->term && s->term->size > SIGNAL_LONG;
}

/* The wire name of a kind, NULL for a kind that never leaves its node; and the kind of a wire name, -1 when
 * there is none. */
const char *signal_wire(enum signal_kind kind);
int signal_from_wire(const char *wire);

struct inbox {
  _Atomic(struct signal *) head; /* newest first */
  atomic_size_t bytes;           /* sum of signal_weight over its signals */
};

/* Any thread.  True when the inbox was empty: the caller must then wake the reader. */
bool inbox_push(struct inbox *in, struct signal *s);

/* The reader only.  Removes all signals and returns them, oldest first, linked by `next`; NULL when there are
 * none. */
struct signal *inbox_take(struct inbox *in);

#endif
