/* lanes: how a scheduler writes a signal to another node by itself, so that no other thread has to wake up
 * for it.  A link that is at rest, with no signal and no byte that waits, has an open lane: lanes_send makes
 * a frame of the signal and has the owner of the lane, a connection, write it.  Whatever cannot be written at
 * once goes through the host's inbox to the I/O thread, which remains the only one that waits for a socket,
 * that queues, and that fails.
 *
 * One lock covers all lanes and what their owners write with.  Schedulers only try it.  The I/O thread takes
 * it, and may so wait for one write of one record.
 *
 * Order.  A signal may be written directly when all earlier signals of its sender have left this node.  Such
 * a signal is, in this order: in the host's inbox (`before`), taken from there and not yet routed
 * (`routing`), queued for its node, behind a long one or not (the lane is closed), or among the bytes of the
 * connection that the socket has not taken (lane_owner.free).  lanes_send looks at all four under the lock,
 * and what moves a signal from one place to the next does so in the order of the list: so none is overlooked.
 *
 * Epoch.  A lane has the number of its connection (nodetab_epoch), and is closed before that ends: a signal
 * that was sent for another connection finds no lane. */
#ifndef AGENT_MESH_LANES_H
#define AGENT_MESH_LANES_H

#include "base/buf.h"
#include "base/err.h"
#include "base/map.h"
#include "core/signal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* A signal whose term, or whose frame, has more bytes goes the other way: it may not fit into one record. */
enum { LANE_TERM_MAX = 4 << 10, LANE_FRAME_MAX = 8 << 10 };

/* Both run under the lock, in any thread, and call nothing of the mesh.  lane_owner is a member of the owner.
 */
struct lane_owner {
  bool (*free)(void *owner); /* would the next bytes be written at once? */
  /* Takes a frame of up to LANE_FRAME_MAX bytes; what cannot be written now, and every failure, is dealt with
   * later by the I/O thread. */
  void (*write)(void *owner, const char *bytes, size_t n);
};

struct lane {
  const struct lane_owner *class;
  void *owner;
  uint64_t key;       /* of its node and connection */
  atomic_llong *sent; /* counts the signals */
  bool open;
};

struct lanes {
  pthread_mutex_t lock;
  const struct nodetab *nodes;
  const struct inbox *before; /* the host's inbox */
  bool routing;               /* signals from `before` are being routed */
  struct map open;            /* key → lane */
  struct buf frame;           /* scratch */
};

/* Both are borrowed. */
void lanes_init(struct lanes *l, const struct nodetab *nodes, const struct inbox *before);
void lanes_finish(struct lanes *l);

/* Scheduler threads.  Sends signals to other nodes, linked by `next`, by one write.  True: they are consumed.
 * False, also when they are not all to one node: they are the caller's, as before. */
bool lanes_send(struct lanes *l, struct signal *s);

/* --- the rest: I/O thread.  l may be NULL: there are no lanes then. --- */

/* Around the routing of what is taken from the inbox: from before it is taken until nothing of it is left. */
void lanes_set_routing(struct lanes *l, bool routing);

/* Around every use of what the owner of a lane writes with. */
void lanes_lock(struct lanes *l);
void lanes_unlock(struct lanes *l);

/* Opens a lane to a node, for its present connection; where memory runs out, the lane stays closed.  *sent
 * outlives the lane. */
void lane_open(struct lanes *l, struct lane *lane, uint32_t incarnation, atomic_llong *sent);
/* Nothing is written once this has returned.  A lane may be closed several times. */
void lane_close(struct lanes *l, struct lane *lane);

#endif
