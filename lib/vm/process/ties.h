/* ties: the links and monitors of one process.  By the scheduler that runs its isolate. */
#ifndef VM_PROCESS_TIES_H
#define VM_PROCESS_TIES_H

#include "base/err.h"
#include "base/map.h"
#include "core/npid.h"
#include "core/term.h"

#include <stdbool.h>
#include <stdint.h>

struct process;

/* Links and monitors; most processes have none. */
struct ties {
  struct map links;    /* pid -> its connection; or the ref of an unlink that is not acknowledged */
  struct map monitors; /* ref -> the pid this process watches */
  struct map epochs;   /* ref of a monitor -> its connection, if it goes by one */
  struct map watchers; /* ref -> the pid that watches this process */
};

/* These change only this process's side of a tie: the caller sends the signal to the other side.  0 or
 * ERR_NOMEM.
 *
 * A link or monitor to another node belongs to one connection, named by its epoch (0 within this node), and
 * fires when that is lost.  A link that was unlinked is void until the other side has acknowledged the unlink
 * (ref). */
bool process_linked(const struct process *p, npid other);
int process_link(struct process *p, npid other, uint32_t epoch) MUST_CHECK; /* by this process, void or not */
int process_link_by(struct process *p, npid other, uint32_t epoch) MUST_CHECK; /* by the other: nothing, while
                                                                                  void */
int process_unlink(struct process *p, npid other, npid ref) MUST_CHECK;        /* one that stands */
bool process_unlink_by(struct process *p, npid other);
void process_unlinked(struct process *p, npid other, npid ref); /* acknowledged */
bool process_link_gone(struct process *p, npid other);          /* the other is gone: did it stand? */

bool process_link_outlives(const struct process *p, npid other, uint32_t epoch); /* by a later connection? */

int process_monitor(struct process *p, npid ref, npid other, uint32_t epoch) MUST_CHECK;
npid process_demonitor(struct process *p, npid ref); /* whom it watched, or NPID_NONE */
int process_watch(struct process *p, npid ref, npid watcher) MUST_CHECK;
void process_unwatch(struct process *p, npid ref);

/* Fires the links and monitors of the connection with this epoch, which is lost, and of earlier ones. */
void process_node_down(struct process *p, uint32_t incarnation, uint32_t epoch, struct term *reason);

/* Sends LINK_EXIT to all linked processes and DOWN to all watchers, and frees all ties. */
void process_cut_ties(struct process *p, struct term *reason);

/* Writes the pairs links, monitors, monitored_by: LISTs of pids.  Returns how many pairs. */
uint32_t process_put_ties(const struct process *p, struct term_writer *w);

/* Frees them without telling anybody. */
void process_free_ties(struct process *p);

#endif
