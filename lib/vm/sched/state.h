/* state: what a vm consists of; for the files of lib/vm only. */
#ifndef VM_SCHED_STATE_H
#define VM_SCHED_STATE_H

#include "base/map.h"
#include "core/signal.h"
#include "vm/config.h"
#include "vm/sched/ptab.h"
#include "vm/sched/sched.h"
#include "vm/sched/timers.h"
#include "vm/sched/waits.h"

#include <pthread.h>
#include <stdatomic.h>

struct isolate;

/* Which isolate keeps a timer of send_after, by its ref; in shards, as every isolate writes here. */
enum { VM_ALARM_SHARDS = 16 };
struct alarm_owners {
  pthread_mutex_t lock;
  struct map isolates;
};

/* The isolates that sleep until a deadline. */
struct sleepers {
  pthread_mutex_t lock;
  struct timers timers;
  _Atomic int64_t next;    /* the earliest, or TIMER_NEVER; read without the lock */
  _Atomic int64_t covered; /* some sleeping scheduler wakes by then, or TIMER_NEVER */
};

struct vm {
  struct vm_config config; /* path and directory are copies */
  struct ptab ptab;
  struct inbox host;
  atomic_uint_fast64_t refs; /* the last number given to a reference */

  int schedulers;
  struct scheduler *scheduler; /* that many */
  pthread_key_t self;          /* the scheduler of this thread, or NULL */
  bool has_self;
  atomic_int asleep; /* schedulers that wait for work */
  atomic_uint rotor; /* where work from other threads goes next */
  atomic_bool stopping;
  bool started;

  struct sleepers sleepers;
  struct alarm_owners alarms[VM_ALARM_SHARDS];

  struct waits waits;

  pthread_mutex_t lock; /* of what follows */
  struct isolate **isolates;
  size_t isolates_len, isolates_cap;
  struct isolate *spare; /* closed ones, for reuse */
  struct isolate *open;  /* where processes from outside the schedulers go */
};

/* The owner, in the table of processes, of the host's own. */
static inline void *vm_host(struct vm *vm) {
  return &vm->host;
}

/* The number of a fresh reference: n of them at once, first to first + n - 1. */
static inline uint64_t vm_refs(struct vm *vm, uint64_t n) {
  return atomic_fetch_add(&vm->refs, n) + 1;
}

#endif
