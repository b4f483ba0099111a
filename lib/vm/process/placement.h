/* placement: all isolates of a vm, and which of them a new process goes into.
 *
 * One child at a time stays in its parent's isolate, since the two will talk; not while other processes
 * compute there, which would keep the child from a core that is free.  A process that spawns several without
 * waiting in between wants them to work at the same time: they go into isolates that other schedulers can
 * take.  A few processes are spread, so that each may get a core of its own; many go PLACEMENT_CHUNK at a
 * time into the same isolate, since those that are spawned together mostly talk to each other; but not into
 * one in which processes compute, while less is computed in another.  Processes that come from outside the
 * schedulers (from the shell, from other nodes) go where the fewest compute, and of those where the fewest
 * are.
 *
 * A full isolate is shut.  When most of its processes have ended it is sparse: its memory serves newcomers
 * before a closed or a new isolate is opened. */
#ifndef VM_PROCESS_PLACEMENT_H
#define VM_PROCESS_PLACEMENT_H

#include "vm/process/isolate.h"

#include <stdbool.h>

struct placement;

enum {
  PLACEMENT_MAX = 1000, /* processes in one isolate: a collector's pause grows with the lua_State */
  PLACEMENT_SMALL = 64, /* an isolate with so many processes gets no children and no processes from outside */
  PLACEMENT_OPEN = 16,  /* isolates over which one scheduler, or the host, spreads what it spawns */
  PLACEMENT_FEW = 4,    /* processes an isolate gets before the next one gets more */
  PLACEMENT_CHUNK = 64,
  PLACEMENT_SPARSE = 250 /* a shut isolate with so many processes, or fewer, is sparse */
};

/* Makes the placement for all schedulers of the vm, after sched_init; NULL when memory ran out. */
struct placement *placement_new(struct vm *vm, const struct isolate_hooks *hooks);

/* After the schedulers have ended: frees all isolates with what lives in them.  Accepts NULL. */
void placement_free(struct placement *pl);

/* Should the next child of the running process go into the same isolate as that process? */
bool placement_is_home(const struct process *p);

/* An isolate for a child of the running process that does not belong into its own; the caller counts the
 * child in `live`.  NULL when memory ran out.  Called by the scheduler that runs the process. */
struct isolate *placement_elsewhere(const struct process *p);

/* An isolate for a process from outside the schedulers, which is counted in `live` already.  NULL when memory
 * ran out.  Any thread. */
struct isolate *placement_from_outside(struct placement *pl);

/* By the scheduler that runs the isolate, which is shut: offers it for newcomers, if it is sparse. */
void placement_offer(struct placement *pl, struct isolate *iso);

/* The same scheduler wants to close the isolate.  False: it has been opened again.  Else nothing comes into
 * it until it is closed and handed over by placement_spare. */
bool placement_retire(struct placement *pl, struct isolate *iso);
void placement_spare(struct placement *pl, struct isolate *iso);

/* Calls fn for every isolate, closed ones too, under the lock of the set.  Any thread. */
void placement_each(struct placement *pl, void (*fn)(struct isolate *iso, void *data), void *data);

#endif
