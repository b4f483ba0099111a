/* state: what a vm consists of.  For the files of vm/sched and vm/process, and vm.c. */
#ifndef VM_SCHED_STATE_H
#define VM_SCHED_STATE_H

#include "vm/config.h"
#include "vm/sched/ptab.h"
#include "vm/sched/refs.h"
#include "vm/sched/sched.h"
#include "vm/sched/waits.h"

struct placement;

struct vm {
  struct vm_config config; /* path and directory are copies */
  struct ptab ptab;
  struct refs refs;
  struct waits waits;
  struct schedulers sched;
  struct runnable
      host; /* owner of the host's processes; never run: the host takes its inbox (vm_host_take) */
  struct placement *placement; /* the isolates: process/placement.h */
};

#endif
