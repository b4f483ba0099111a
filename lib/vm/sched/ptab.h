/* ptab: the table of every process of this node, by number.
 *
 * Any thread may look up, without a lock.  A slot names the runnable that owns the process: an isolate's, or
 * the host's.  Runnables live as long as the table, so a signal sent to the owner of a process that has just
 * ended is harmless: the owner finds no such process, and answers the signal as vm_nobody (deliver.h) does.
 * Numbers are taken and given back in batches, under a lock: slot = number mod capacity (2^22), and each use
 * of a slot adds the capacity, up to NPID_NUMBER_MAX; then the slot begins again.  So a number comes again
 * when its slot has been used 2^22 times: after 2^37 processes at the earliest, since at least 2^15 slots are
 * used in turn. */
#ifndef VM_SCHED_PTAB_H
#define VM_SCHED_PTAB_H

#include "base/err.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct runnable;

struct ptab_slot {
  _Atomic uint64_t number; /* 0: nobody */
  _Atomic(struct runnable *) owner;
  _Atomic(void *) object; /* for the owner alone: an isolate's struct process */
  atomic_bool full;       /* the mailbox is at its bound, so senders wait */
};

/* What any thread may read of a green thread, without asking it: relaxed stores, made by the scheduler that
 * runs it, mostly as it stops running.  So the facts of one process may belong to slightly different moments.
 */
struct ptab_facts {
  _Atomic int64_t started; /* clock_ns; 0: it has not begun, and the other facts mean nothing */
  _Atomic int64_t memory;  /* bytes, as metered */
  _Atomic uint64_t leader;
  _Atomic(const char *) what; /* where its code begins, or NULL; read under facts_lock only */
  _Atomic uint32_t mailbox;   /* messages */
  _Atomic uint32_t mail;      /* KiB of messages in the mailbox */
  _Atomic uint32_t ticks;     /* SCHED_TICK_NS each, that found it running: preempt.c */
  _Atomic uint32_t unread;    /* clock_tenths when its mailbox was last empty; 0: it is empty */
  _Atomic uint8_t state;      /* enum process_state */
  _Atomic uint8_t priority;   /* enum process_priority */
  _Atomic uint32_t files;     /* that it has open */
};

struct ptab {
  struct ptab_slot *slots;
  struct ptab_facts *facts;   /* by the same index as slots */
  pthread_mutex_t facts_lock; /* held to free a text that was in `what`, and to read from such texts */
  uint64_t *free;             /* ring of the next numbers of free slots, oldest first */
  uint32_t head, count;
  uint32_t fresh; /* slots from here on were never used */
  uint32_t max;   /* numbers that ptab_take hands out; set before the first one */
  pthread_mutex_t lock;
};

int ptab_init(struct ptab *t) MUST_CHECK;
void ptab_finish(struct ptab *t);

/* Takes up to n numbers, while fewer than t->max are taken; returns how many.  ptab_take_spare takes one,
 * while fewer than PTAB_SPARE more are taken. */
enum { PTAB_SPARE = 4095 };
size_t ptab_take(struct ptab *t, uint64_t *out, size_t n);
size_t ptab_take_spare(struct ptab *t, uint64_t *out);

/* Bytes of the arrays in use. */
int64_t ptab_bytes(struct ptab *t);

/* Gives back numbers whose processes have ended or were never made. */
void ptab_give(struct ptab *t, const uint64_t *numbers, size_t n);

/* ptab_set publishes a process under a number that was taken; ptab_clear withdraws it.  ptab_find finds the
 * process in between. */
void ptab_set(struct ptab *t, uint64_t number, struct runnable *owner, void *object);
void ptab_clear(struct ptab *t, uint64_t number);

/* The facts of the slot of a number. */
struct ptab_facts *ptab_facts(struct ptab *t, uint64_t number);

/* The slot of a live process, or NULL. */
struct ptab_slot *ptab_find(struct ptab *t, uint64_t number);

#endif
