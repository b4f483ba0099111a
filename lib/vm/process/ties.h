/* ties: the links and monitors of one process.  Called by the scheduler that runs its isolate. */
#ifndef VM_PROCESS_TIES_H
#define VM_PROCESS_TIES_H

#include "base/err.h"
#include "base/map.h"
#include "core/npid.h"
#include "core/term.h"
#include "vm/process/isolate.h"

#include <stdbool.h>
#include <stdint.h>

struct isolate;
struct process;

/* Links and monitors; most processes have none. */
struct ties {
  struct map links;    /* pid -> its connection; or the ref of an unlink that is not acknowledged */
  struct map monitors; /* ref -> the pid this process watches */
  struct map epochs;   /* ref of a monitor -> its connection, if the monitor depends on a connection */
  struct map watchers; /* ref -> the pid that watches this process */
  uint32_t aliases;    /* refs of monitors that are aliases, too: those in iso->aliases */
};

/* These functions change only the entries of this process: the caller sends the signal to the other process.
 * Those that return an int return 0, ERR_BUSY (LIMIT_TIES) or ERR_NOMEM.
 *
 * A link or monitor to another node belongs to one connection, named by its epoch (0 within this node), and
 * fires when that connection is lost.  A link that this process has removed stays in `links` as *void*, with
 * the ref of the UNLINK, until the other process has acknowledged that UNLINK. */

/* Is there room for n more entries, of processes of this isolate?  If so, the next n are not refused. */
bool process_may_tie(struct process *p, int n);

/* Is there room for an entry of this process, and for the one of the other where that is of this node?
 * Otherwise this process would hear only later, from the other, that there is none. */
bool process_may_tie_to(struct process *p, npid other);

/* Does a link to the process exist that is not void? */
bool process_linked(const struct process *p, npid other);

/* This process links itself to another: adds the link, and replaces a void one. */
int process_link(struct process *p, npid other, uint32_t epoch) MUST_CHECK;

/* The other process has linked this one (LINK): adds the link, unless there is an entry, void or not. */
int process_link_by(struct process *p, npid other, uint32_t epoch) MUST_CHECK;

/* This process removes a link that is not void, by an UNLINK with this ref: makes the link void. */
int process_unlink(struct process *p, npid other, npid ref) MUST_CHECK;

/* The other process has removed the link (UNLINK): removes the link here, unless it is void.  True: the link
 * was removed. */
bool process_unlink_by(struct process *p, npid other);

/* UNLINK_ACK with this ref has come: removes the void link. */
void process_unlinked(struct process *p, npid other, npid ref);

/* The other process has ended: removes the link.  True: the link was not void, so it fires. */
bool process_link_gone(struct process *p, npid other);

/* Does the link belong to a later connection than the one with this epoch? */
bool process_link_outlives(const struct process *p, npid other, uint32_t epoch);

/* This process monitors another; process_demonitor returns which one, or NPID_NONE when there is no such
 * monitor. */

int process_monitor(struct process *p, npid ref, npid other, uint32_t epoch) MUST_CHECK;
npid process_demonitor(struct process *p, npid ref);

/* As process_demonitor, and tells the other process. */
npid process_end_monitor(struct process *p, npid ref);

/* Makes the ref of a monitor an alias: the first message that is sent to the ref goes to this process, and
 * removes the monitor.  An alias ends with its monitor, whatever ends that. */
int process_alias(struct process *p, npid ref) MUST_CHECK;

/* The process of this isolate that has the alias, or NULL.  process_take_alias is for a message to it: the
 * alias and its monitor end. */
struct process *process_of_alias(struct isolate *iso, npid ref);
struct process *process_take_alias(struct isolate *iso, npid ref);

/* Another process (watcher) monitors this one; process_unwatch: the watcher no longer does. */
int process_watch(struct process *p, npid ref, npid watcher) MUST_CHECK;
void process_unwatch(struct process *p, npid ref);

/* Fires up to n links and monitors of the lost connection, and of earlier ones.  Returns how many; less than
 * n: these were the last of the process. */
int process_node_down(struct process *p, struct ties_loss *l, int n);

/* Forgets the present process. */
void ties_loss_next(struct ties_loss *l);

/* The ties of a process that has ended, and how far they are cut. */
struct ties_cut {
  struct ties *ties; /* NULL: it has none */
  int kind;
  size_t at;
};

/* Cuts up to n ties: sends LINK_EXIT to the linked processes, DOWN to the watchers, and DEMONITOR to those
 * that it watched, in this order.  Returns how many; less than n: these were the last, and the ties are
 * freed. */
int ties_cut(struct isolate *iso, struct ties_cut *cut, npid pid, struct term *reason, int n);

/* Writes the pairs links, monitors, monitored_by: LISTs of pids.  Returns how many pairs. */
uint32_t process_put_ties(const struct process *p, struct term_writer *w);

/* Frees ties (which may be NULL), and sends no signal. */
void ties_free(struct isolate *iso, struct ties *ties);

#endif
