/* still_vm: a vm whose scheduler threads were never started. The test runs its isolates, one turn at a time,
 * and is the host, too. So a test may look into isolates and processes between two turns; no turn is cut
 * short by preemption, and every run has the same schedule. One thread. */
#ifndef TESTS_UNIT_STILL_VM_H
#define TESTS_UNIT_STILL_VM_H

#include "vm/process/process.h"
#include "vm/sched/state.h"
#include "vm/vm.h"

struct still {
  struct vm *vm;
  struct nodetab *nodes;
  struct names *names, *globals;
  uint32_t far;           /* incarnation of the other node, far@there */
  npid tester;            /* the host's one process, the leader of all others */
  int wakes;              /* calls of vm_config.wake */
  struct signal *signals; /* taken from the host's inbox, oldest first */
};

void still_init(struct still *st, const struct vm_config *limits); /* schedulers and bounds are read */
void still_finish(struct still *st);

/* Runs isolates until none has anything to do. */
void still_run(struct still *st);

/* Spawns a process that runs this Lua code, and calls still_run; aborts when the spawn was refused. */
struct process *still_spawn(struct still *st, const char *code);

/* The oldest signal to the host of this kind that still_take has not returned yet, or NULL.  The caller frees
 * it. */
struct signal *still_take(struct still *st, enum signal_kind kind);

/* Drops all signals to the host. */
void still_clear(struct still *st);

#endif
