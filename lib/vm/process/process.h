/* process: a green thread. Everything here by the scheduler that runs its isolate. */
#ifndef VM_PROCESS_H
#define VM_PROCESS_H

#include "base/map.h"
#include "core/signal.h"
#include "vm/process/isolate.h"
#include "vm/process/mailbox.h"
#include "vm/sched/timers.h"

#include <lua.h>
#include <lauxlib.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

struct alarm;
struct room_wait;

enum process_state {
  PROCESS_FREE,
  PROCESS_READY,
  PROCESS_RUNNING,
  PROCESS_RECEIVES, /* the next message, whichever it is */
  PROCESS_MATCHES,  /* a message that fits */
  PROCESS_SLEEPS,
  PROCESS_CALLS, /* waits for the reply to a call */
  PROCESS_SENDS, /* waits for room at a receiver */
};

/* Links and monitors; most processes have none. */
struct ties {
  struct map links;    /* pid -> its connection; or the ref of an unlink that is not acknowledged */
  struct map monitors; /* ref -> the pid this process watches */
  struct map epochs;   /* ref of a monitor -> its connection, if it goes by one */
  struct map watchers; /* ref -> the pid that watches this process */
};

struct process {
  npid pid;
  struct isolate *isolate;
  lua_State *L;
  struct process *next; /* in a ready queue, or in the pool */
  struct timer timer;   /* of the wait */
  struct mailbox mailbox;
  struct ties *ties;
  struct term *end;     /* [reason], once it must end */
  struct signal *order; /* what it was spawned to do, until it has begun */
  struct signal *taken; /* the message being decoded */
  npid leader;
  npid call;       /* ref of the pending call, or NPID_NONE */
  npid callee;     /* whom it went to */
  npid callee_ref; /* a monitor on whom it is to spawn, or NPID_NONE */
  struct term *reply;
  struct alarm *alarms;   /* that it has set for itself */
  struct room_wait *room; /* while it waits for room at a receiver */
  int64_t heap;           /* bytes, as metered */
  int64_t outside;        /* bytes of that which are kept for it outside of Lua's heap */
  int64_t started;        /* clock_ns */
  uint32_t slot;
  uint32_t call_epoch; /* of the pending call */
  uint32_t output;     /* bytes put since the last flush */
  uint32_t named;      /* bytes sent by name to other nodes since the last answer */
  int nargs;           /* values on the coroutine's stack for the next resume */
  uint8_t state;
  bool direct : 1; /* those values are the message it waited for */
  bool timed_out : 1;
  bool trap_exit : 1;
  bool quiet : 1;   /* its error was told otherwise */
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

/* A process with an empty stack, known to the table of processes under its number, and counted.  Its globals
 * are pushed on L, any thread of the isolate.  Raises when memory runs out, so only inside a protected call.
 */
struct process *process_new(lua_State *L, struct isolate *iso, uint64_t number, npid leader);

/* Frees process and pool; the lua_State is being closed. */
void process_free(struct process *p);

/* Puts it in the queue of the woken, out of whatever it waits for. */
void process_ready(struct process *p);

/* Begins a wait; at: TIMER_NEVER or a deadline. Then lua_yield. */
void process_wait(struct process *p, enum process_state state, int64_t at);

/* Runs it until it waits, is preempted, or ends. */
void process_run(struct process *p);

/* It must end with [reason]; takes the term.  The first reason stands. */
void process_doom(struct process *p, struct term *reason);

/* It must end with the reason "memory"; its leader is told what was too much. */
void process_outgrew(struct process *p, const char *what);

/* Bytes that are kept for it outside of Lua's heap, from now on (or, negative, no longer). */
void process_charge(struct process *p, int64_t bytes);

/* Pushes its globals. */
void process_push_env(lua_State *L, struct process *p);

/* What a signal does to it; consumes the signal. */
void process_signal(struct process *p, struct signal *s);

/* Puts a message of the system, or of anybody, in its mailbox. */
void process_message(struct process *p, struct signal *s);

/* Takes the message that link leads to out of its mailbox; it stays p->taken's until the next one. */
struct signal *process_take(struct process *p, struct signal **link);

/* Ties, of which these are one side: the signal to the other is the caller's. 0 or ERR_NOMEM.
 *
 * Links and monitors go with their connection (epoch; 0 within this node).  A link that does not stand any
 * more is void until the other has acknowledged the unlink (ref). */
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

/* Fires links and monitors across a connection that is gone, or an earlier one. */
void process_node_down(struct process *p, uint32_t incarnation, uint32_t epoch, struct term *reason);

/* Tells links and watchers that it ended, and forgets all ties. */
void process_cut_ties(struct process *p, struct term *reason);

/* Writes the pairs links, monitors, monitored_by: LISTs of pids.  Returns how many pairs. */
uint32_t process_put_ties(const struct process *p, struct term_writer *w);

/* [true, MAP], the answer to an "info" call; with everything, to "process_info". */
struct term *process_info(struct process *p, bool everything);

#endif
