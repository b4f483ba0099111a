/* room: flow control of messages.  Knows which receivers have no room for more messages, and suspends senders
 * until there is room.  Any thread.
 *
 * Four things can lack room: the mailbox of a process of this node, the inbox of an isolate or of the host, a
 * process of another node that its node has reported full, and the connection to another node.  Green threads
 * that send to such a receiver suspend.  The shell is told that a process is full, and waits for a
 * connection. Senders that cannot wait (timers, and other nodes until they know) still deliver; a process
 * whose mailbox reaches twice its bound ends with the reason "memory". */
#ifndef VM_SCHED_ROOM_H
#define VM_SCHED_ROOM_H

#include "base/err.h"
#include "core/npid.h"
#include "core/signal.h"

#include <stdbool.h>
#include <stdint.h>

struct room_wait;
struct vm;

/* Marks a process of this node as full, so that its senders suspend; or as not full, which wakes them. */
void vm_set_full(struct vm *vm, npid pid, bool full);

/* Marks the connection to a node as busy, so that senders to that node suspend until it drains; or as not
 * busy, which wakes them. */
void vm_set_busy(struct vm *vm, uint32_t incarnation, bool busy);

/* Marks a process of another node as full, or not, when its node has reported that. */
void vm_hold(struct vm *vm, npid pid, bool held);

/* Marks up to VM_UNHOLDS processes of a node as not full, of those that were marked while the connection with
 * that epoch, or an earlier one, was the present one; true: there may be more. */
enum { VM_UNHOLDS = 256 };
bool vm_unhold_node(struct vm *vm, uint32_t incarnation, uint32_t epoch);

/* Bytes of signals in the host's inbox, above which it lacks room for messages to other nodes.  Who sends
 * these fills it as fast as it can: with so few bytes the signals that wait are still in the caches of the
 * processors, and their memory is soon used again. */
enum { ROOM_NODES_BYTES = 1 << 20 };

/* The key (waits.h) of what lacks room for one more message to this pid, of this node or another; NPID_NONE
 * when nothing does. */
npid vm_lack(struct vm *vm, npid to);

/* Waits until there may be room at `to`.
 *   0          there is room: no wait was made
 *   ERR_BUSY   the signal ROOM will go to `who`, from `to`, once there may be room.  *out is the caller's to
 *              end with vm_leave_room, soon after the signal, or instead of it; then the caller looks again
 *   ERR_NOMEM */
int vm_await_room(struct vm *vm, npid to, npid who, struct room_wait **out) MUST_CHECK;
void vm_leave_room(struct vm *vm, struct room_wait **w); /* *w may be NULL, and is NULL afterwards */
/* Ends a wait as the vm ends: tells nobody else that there may be room. */
void vm_forget_room(struct vm *vm, struct room_wait **w);

/* A long signal (signal_is_long) of a green thread to another node: the sender calls vm_sending before it
 * delivers the signal, and then waits with vm_await_sent, as with vm_await_room, until the host calls vm_sent
 * because the signal was sent or dropped.  So a process has one such signal under way, and the memory for
 * them is bounded. */
void vm_sending(struct vm *vm, npid who);
int vm_await_sent(struct vm *vm, npid who, struct room_wait **out) MUST_CHECK;
void vm_sent(struct vm *vm, npid who);

/* To be called after an inbox was emptied: wakes the senders that wait for room in it. */
void vm_inbox_taken(struct vm *vm, const struct inbox *in);

#endif
