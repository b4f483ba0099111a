/* signal: what one process does to another.  Everything that reaches a process, from the same isolate,
 * another thread, the shell or another node, is one of these, handed to deliver (vm.h).  The kinds and their
 * meaning are those of the Erlang reference manual, "Processes: Signals", with CALL and REPLY for the system
 * processes.
 *
 * Order between one pair of processes is kept: signals from A to B take one path and none overtakes.
 *
 * An inbox is where signals cross threads: many writers, one reader, lock-free, never full (bounds are kept
 * by the senders, who look at `bytes`). */
#ifndef CORE_SIGNAL_H
#define CORE_SIGNAL_H

#include "core/npid.h"
#include "core/term.h"

#include <stdatomic.h>
#include <stdbool.h>

/* clang-format off */
/*  kind               wire name      ref           term */
#define SIGNAL_TABLE(X)                                                                                      \
  X(SIGNAL_MESSAGE,    "message")     /* -             the message's values */                               \
  X(SIGNAL_EXIT,       "exit")        /* -             [reason]: exit(pid, reason) was called */             \
  X(SIGNAL_LINK_EXIT,  "link_exit")   /* -             [reason]: a linked process ended */                   \
  X(SIGNAL_LINK,       "link")        /* -             - */                                                  \
  X(SIGNAL_UNLINK,     "unlink")      /* the unlink    - */                                                  \
  X(SIGNAL_UNLINK_ACK, "unlink_ack")  /* the unlink    -: it has arrived */                                  \
  X(SIGNAL_MONITOR,    "monitor")     /* the monitor   - */                                                  \
  X(SIGNAL_DEMONITOR,  "demonitor")   /* the monitor   - */                                                  \
  X(SIGNAL_DOWN,       "down")        /* the monitor   [reason] */                                           \
  X(SIGNAL_LEADER,     "leader")      /* -             [pid]: the new group leader */                        \
  X(SIGNAL_CALL,       "call")        /* the call      [op, arguments…]; ref NONE: no reply is wanted */     \
  X(SIGNAL_REPLY,      "reply")       /* the call      [true, values…] or [false, wire name, text] */        \
  X(SIGNAL_SPAWN,      NULL)          /* the call      [spec]: inside the vm */                              \
  X(SIGNAL_NODEDOWN,   NULL)          /* -             [reason]: `from` is the kernel of the lost node */    \
  X(SIGNAL_ROOM,       NULL)          /* -             -: `from` may take more again (vm_lack) */
/* clang-format on */

enum signal_kind {
#define X(kind, wire) kind,
  SIGNAL_TABLE(X)
#undef X
      SIGNAL_KINDS
};

struct signal {
  struct signal *next;
  npid to;
  npid from; /* NPID_NONE when nobody in particular */
  npid ref;  /* NPID_NONE where the kind has none */
  struct term *term;
  uint32_t epoch; /* of the connection that it goes out by, or came in by; 0: neither, or not yet */
  uint8_t kind;
};

/* A signal that owns one reference to term (which may be NULL): on failure (NULL) the term is still yours. */
struct signal *signal_new(enum signal_kind kind, npid to, npid from, npid ref, struct term *term);
void signal_free(struct signal *s); /* accepts NULL */

/* What it weighs against a bound. */
static inline size_t signal_weight(const struct signal *s) {
  return sizeof *s + (s->term ? sizeof *s->term + s->term->size : 0);
}

/* Wire name of a kind (NULL for those that never travel), and back (-1 when unknown). */
const char *signal_wire(enum signal_kind kind);
int signal_from_wire(const char *wire);

struct inbox {
  _Atomic(struct signal *) head; /* newest first */
  atomic_size_t bytes;           /* weight of what is in it */
};

/* Any thread. True when the inbox was empty: the writer then wakes the reader. */
bool inbox_push(struct inbox *in, struct signal *s);

/* The reader only.  Takes everything, oldest first, linked by `next`; NULL when there is nothing. */
struct signal *inbox_take(struct inbox *in);

#endif
