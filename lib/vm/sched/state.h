/* state: the parts of a vm.  Only vm.c and the files of vm/sched and vm/process include it. */
#ifndef VM_SCHED_STATE_H
#define VM_SCHED_STATE_H

#include "vm/config.h"
#include "vm/sched/ptab.h"
#include "vm/sched/refs.h"
#include "vm/sched/sched.h"
#include "vm/sched/waits.h"

#include <stdatomic.h>
#include <stdint.h>

struct placement;

/* The memory of the node, as last measured: process/budget.h. */
enum budget_level { BUDGET_AMPLE, BUDGET_SHORT, BUDGET_CRITICAL };

struct budget {
  atomic_int level;
  atomic_uint episode;      /* counts shortages */
  _Atomic int64_t share;    /* bytes; while the memory is not ample */
  _Atomic int64_t rss;      /* at the last measurement */
  _Atomic int64_t next_end; /* clock_ns from which on a process may end for it */
};

struct vm {
  struct vm_config config; /* path and directory are copies; limits is never NULL */
  struct limits limits;    /* where config.limits points when the host has given none */
  struct ptab ptab;
  struct refs refs;
  struct waits waits;
  struct schedulers sched;
  struct runnable
      host; /* owns the host's processes; no scheduler runs it: the host takes its inbox (vm_host_take) */
  struct budget budget;
  struct term *no_memory;      /* the reason "memory" */
  struct placement *placement; /* the isolates: process/placement.h */
};

#endif
