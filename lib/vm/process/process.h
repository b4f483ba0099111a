/* process: a green thread.  Only the scheduler that runs its isolate calls these functions. */
#ifndef VM_PROCESS_H
#define VM_PROCESS_H

#include "core/signal.h"
#include "vm/process/isolate.h"
#include "vm/process/mailbox.h"
#include "vm/sched/preempt.h"
#include "vm/sched/timers.h"

#include <lua.h>
#include <lauxlib.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

struct alarm;
struct file_list;
struct room_wait;
struct ties;

enum process_state {
  PROCESS_FREE,
  PROCESS_READY,
  PROCESS_RUNNING,
  PROCESS_RECEIVES, /* waits for the next message, whatever its values */
  PROCESS_MATCHES,  /* waits for a message that fits the pattern of receive_match */
  PROCESS_SLEEPS,
  PROCESS_CALLS, /* waits for the reply to a call */
  PROCESS_SENDS, /* waits for room at a receiver */
};

/* Who runs first:
 *   high     as one that was woken, also while it computes, and before the others of its isolate
 *   normal   in turn, those that were woken before those that compute
 *   low      when no process of normal priority wants the core, and in one turn of SCHED_LOW_TURN */
enum process_priority { PRIORITY_NORMAL, PRIORITY_LOW, PRIORITY_HIGH, PRIORITIES };

struct process {
  union { /* first member: the extra space of the coroutine points to it */
    struct preemptible preemptible;
    struct isolate *isolate; /* the same pointer as preemptible.runnable, the isolate's first member */
  };
  npid pid;
  lua_State *L;
  struct process *next; /* in a ready queue, or in the pool */
  struct timer timer;   /* of the wait */
  struct mailbox mailbox;
  struct ties *ties;
  struct file_list *files; /* that it has open; NULL: it has opened none */
  struct signal *order;    /* what it was spawned to do, until it has begun */
  struct signal *taken;    /* the message being decoded */
  npid leader;
  npid call;       /* ref of the pending call, or NPID_NONE */
  npid callee;     /* the receiver of that call */
  npid child;      /* what that call has spawned, by its LINK that came before the reply; or NPID_NONE */
  npid callee_ref; /* the ref of the monitor for the process that the call spawns, or NPID_NONE */
  struct term *reply;
  struct alarm *alarms;   /* that it has set for itself */
  struct room_wait *room; /* while it waits for room at a receiver */
  int64_t collected;      /* its memory after the collection that budget.c has last made for it */
  int64_t outside;        /* bytes that are kept for it outside of Lua's heap */
  int64_t started;        /* clock_ns */
  uint32_t slot;
  uint32_t call_epoch; /* of the pending call */
  uint32_t output;     /* bytes put since the last flush */
  uint32_t named;      /* bytes sent by name to other nodes since the last answer */
  int nargs;           /* values on the coroutine's stack for the next resume */
  uint8_t state;
  uint8_t priority; /* enum process_priority */
  bool direct : 1;  /* those values are the message it waited for */
  bool timed_out : 1;
  bool trap_exit : 1;
  bool quiet : 1;   /* its error is not to be printed: the reply to its order has it */
  bool modules : 1; /* it has required some */
  bool full : 1;    /* senders were told to wait */
  bool spawned : 1; /* since it last waited */
  bool alive : 1;
};

/* The process that runs in this coroutine; NULL in the isolate's main thread. */
static inline struct process *process_of(lua_State *L) {
  return *(struct process **)lua_getextraspace(L);
}

static inline struct process *process_of_timer(struct timer *t) {
  return (struct process *)((char *)t - offsetof(struct process, timer));
}

/* Makes a process with an empty stack, enters it into the table of processes under its number, and counts it.
 * Its globals are pushed on L, any thread of the isolate.  NULL, with nothing pushed, when memory ran out:
 * the caller still has the number. */
struct process *process_new(lua_State *L, struct isolate *iso, uint64_t number, npid leader);

/* Frees the process (which may be NULL), without a signal to anybody; only while its lua_State is being
 * closed. */
void process_free(struct process *p);

/* Ends the process's wait, and queues it as ready. */
void process_ready(struct process *p);

/* Queues a new process.  A few come before the processes that compute, as woken ones do; of more at a time
 * each counts as one that computes. */
void process_begin(struct process *p);

/* Takes effect when the process is queued next. */
void process_set_priority(struct process *p, enum process_priority priority);

/* Begins a wait until process_ready, or until the deadline `at` (or TIMER_NEVER).  The caller then calls
 * lua_yield. */
void process_wait(struct process *p, enum process_state state, int64_t at);

/* Runs the process until it waits, is preempted, or ends. */
void process_run(struct process *p);

/* Makes the process end with this reason, as soon as it does not run; takes the term.  NULL: "memory", which
 * is also the reason when there is no memory for another one. Later calls change nothing. */
void process_doom(struct process *p, struct term *reason);

/* Makes the process end with the reason "memory"; `what` says which bound it reached, in a message to its
 * group leader.
 */
void process_outgrew(struct process *p, const char *what);

/* The bytes that it holds, with those outside of Lua's heap. */
static inline int64_t process_memory(const struct process *p) {
  return heap_held(&p->isolate->heap, HEAP_SLOT + p->slot);
}

/* Drops most of the pooled processes of an isolate that has many of them and few others (surplus). */
bool process_pool_has_surplus(const struct isolate *iso);
void process_pool_shrink(struct isolate *iso);

/* Adds bytes that are kept for the process outside of Lua's heap to its memory; negative: takes them off. */
void process_charge(struct process *p, int64_t bytes);

/* Pushes the globals of the process.  Raises when memory runs out. */
void process_push_env(lua_State *L, struct process *p);

#endif
