/* state: the parts of a vm.  Only vm.c and the files of vm/sched and vm/process include it. */
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
      host; /* owns the host's processes; no scheduler runs it: the host takes its inbox (vm_host_take) */
  struct placement *placement; /* the isolates: process/placement.h */
};

#endif
