/* waits: the processes that wait for room at a receiver, and the full processes of other nodes.  Any thread.
 *
 * An npid, the key, names what lacks room: a process of this node; a process of another node that its
 * node has reported full; the kernel of a node, when the connection to that node is full; or an inbox
 * (waits_key_of_inbox). */
#ifndef VM_SCHED_WAITS_H
#define VM_SCHED_WAITS_H

#include "base/err.h"
#include "base/map.h"
#include "base/ring.h"
#include "core/npid.h"
#include "core/signal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct room_wait;

/* How many waits are told when their key has room, and how many others by each that was told, as it leaves.
 * So nobody who makes room works for long, however many wait. */
enum { WAITS_AT_ONCE = 64, WAITS_EACH = 2 };

struct waits {
  atomic_size_t count, for_inbox; /* all waits, and the waits whose key is an inbox */
  atomic_size_t held_count;       /* the length of held: while it is 0, waits_held takes no lock */
  pthread_mutex_t lock;           /* of the maps */
  struct map held;                /* the full processes of other nodes -> epoch + 1 */
  struct map by_key;              /* key -> the ring of its waits */
  struct ring ending;             /* the waits whose keys have room, and that are still to be told */
};

void waits_init(struct waits *w);
void waits_finish(struct waits *w);

/* The key of an inbox: made of its address, with the bit of a reference, so that no process has it. */
npid waits_key_of_inbox(const struct inbox *in);

/* Adds a wait for the key.  When the key has room again, the signal ROOM goes to `who`, once, from `to`.  The
 * caller owns the wait and ends it with waits_leave, soon after the signal, or instead of it.  NULL when
 * memory ran out. */
struct room_wait *waits_enter(struct waits *w, npid key, npid to, npid who);
/* Accepts NULL.  Returns signals ROOM for others, linked by next, for the caller to deliver. */
struct signal *waits_leave(struct waits *w, struct room_wait *wait) MUST_CHECK;

/* Call it when the key has room again, after storing with seq_cst that there is room.  All waits for the
 * key are over; returns the signals ROOM of some, oldest wait first, linked by next, for the caller to
 * deliver. waits_leave returns the others, as those leave that were told. */
struct signal *waits_end(struct waits *w, npid key) MUST_CHECK;

/* Notes that a process of another node is full, which came by the connection with that epoch, or is no longer
 * full.  When memory runs out the process counts as not full. */
void waits_hold(struct waits *w, npid pid, bool held, uint32_t epoch);
bool waits_held(struct waits *w, npid pid);

/* Up to max of the full processes of one node, of the connection with that epoch, and of earlier ones;
 * returns how many. */
size_t waits_held_of(struct waits *w, uint32_t incarnation, uint32_t epoch, npid *out, size_t max);

#endif
