/* isolate: one lua_State with up to PLACEMENT_MAX green threads, its inbox, its ready queues and its timers.
 * At any moment at most one scheduler runs it.  Other threads may only use the inbox, the runnable's state,
 * live, open and the counters.  The struct lives as long as the vm, so a signal to a process that has ended
 * still has a valid isolate to go to, which answers that the process does not exist. */
#ifndef VM_PROCESS_ISOLATE_H
#define VM_PROCESS_ISOLATE_H

#include "base/buf.h"
#include "base/idtab.h"
#include "base/map.h"
#include "core/signal.h"
#include "core/term.h"
#include "vm/config.h"
#include "vm/process/heap.h"
#include "vm/sched/sched.h"
#include "vm/sched/timers.h"
#include "vm/sched/whereis.h"

#include <lua.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct isolate;
struct process;
struct vm;
struct factory;
struct label;
struct parting;

enum { ISOLATE_BATCH = 16, ISOLATE_PROTOS = 256, ISOLATE_LABELS = 64 };

/* The language that the processes of an isolate run: bind/ implements it, and vm.c passes it to the isolates.
 */
struct isolate_hooks {
  /* Fills a new lua_State with the language; false when memory ran out. */
  bool (*open)(lua_State *L, struct isolate *iso);
  /* Frees what the language keeps in the isolate outside of L, before L is closed. */
  void (*close)(struct isolate *iso);
  /* Closes the files of a process that ends, and frees p->files, which is not NULL. */
  void (*leave)(struct process *p);
  /* Pushes the value of that name from a module that comes with the node (bind/require.h), which is loaded if
   * need be; nil if there is none.  Raises when it cannot be loaded. */
  void (*library)(lua_State *L, const char *name);
  /* The first function of a process that an order has made (spawn.h). */
  lua_CFunction boot;
  /* The error value at index as text, which stays valid while the value is on the stack; may push. */
  const char *(*text)(lua_State *L, int index);
};

/* Tables in the registry of an isolate, by reference number. */
struct isolate_refs {
  int threads;   /* process slot -> its coroutine */
  int envs;      /* process slot -> its globals */
  int loaded;    /* process slot -> modules it has required */
  int env_meta;  /* metatable of every process's globals */
  int shared;    /* globals of the modules that come with the node */
  int names;     /* library function or table -> qualified name */
  int values;    /* qualified name -> library function or table */
  int modules;   /* path -> compiled module */
  int witnesses; /* weak: place in protos -> a closure */
  int written;   /* false, the only function of the message that is encoded, or object or cell -> number */
  int multicast; /* place in multicast.places + 1 -> string or list */
  int read;      /* false, or of the message that is decoded: number -> object (copy/fn_in.c) */
};

/* The functions of one message, which may share variables (copy/fn.h). */
struct fn_scope {
  uint32_t objects, cells; /* numbers that were given */
  enum fn_stage { FN_NONE, FN_ONE, FN_MANY } stage;
  size_t flag; /* FN_ONE: of the first function, in the writer */
  npid reader; /* of a message that is decoded */
};

struct isolate_proto {
  const void *proto;
  struct factory *factory;
};

enum { MULTICAST_TERMS = 8, MULTICAST_VALUES = 1024 };

struct multicast_place {
  const void *at; /* where the value is in its term; NULL: an unused place */
  size_t n;       /* its bytes there */
};

/* Values that were made for one receiver of a message, for the next one (multicast.h). */
struct multicast {
  const struct term *now; /* the message that is decoded, if it is one of `terms` */
  struct term *terms[MULTICAST_TERMS];
  uint32_t terms_len, values_len;
  struct multicast_place *places; /* MULTICAST_VALUES by hash; NULL until the first value is kept */
};

struct tidy {   /* tidy.h */
  int64_t at;   /* when to begin (clock_ns); 0: nothing is due */
  int64_t rest; /* bytes of nobody that the last collection has left */
  uint8_t stage;
};

/* The loss of a connection to a node, and how far its ties are fired: of one process after the other.  `pid`
 * is NPID_NONE at first. */
struct ties_loss {
  uint32_t incarnation, epoch;
  struct term *reason; /* borrowed */
  npid pid;            /* the present process */
  int kind;            /* of its ties that are being fired, counted from 1 */
  uint64_t *keys;      /* their keys, count of them */
  size_t count;
};

/* As it was when the isolate last ran; any thread may read it.  Bytes, if not said otherwise. */
struct isolate_meters {
  _Atomic int64_t held;     /* by the accounts */
  _Atomic int64_t reserved; /* by the heap, from the kernel and malloc */
  _Atomic int64_t large;    /* by it, from malloc */
  _Atomic int64_t mail;     /* by mailboxes */
  _Atomic int64_t alarms;   /* number of alarms, */
  _Atomic int64_t ties;     /* and of ends of links and monitors */
};

struct queue { /* of processes, by their next */
  struct process *first, *last;
  unsigned len;
};

struct isolate {
  struct runnable runnable; /* first member: its address is that of the isolate */
  struct vm *vm;
  const struct vm_config *config; /* the vm's */
  const struct isolate_hooks *hooks;
  struct isolate *next, **pprev; /* in a list of placement.c, under its lock; pprev: among the sparse ones */
  atomic_int live;               /* processes of this isolate, and orders for processes on their way to it */
  atomic_bool open;              /* new processes may come */
  atomic_bool offered;           /* it is among the sparse ones (placement.h) */
  _Atomic uint64_t spawned, messages;

  lua_State *L; /* NULL while closed */
  struct isolate_refs refs;
  struct heap heap;
  struct process *current;
  struct queue ready;     /* processes that were woken, a few that are new, and all of high priority */
  struct queue preempted; /* processes that compute: they have used up a slice, or given it up by sleep(0) */
  struct queue low;       /* all of low priority that want to run */
  bool served;            /* a process of the last two queues has run in this slice, */
  int64_t began;          /* the first at this processor time of the scheduler's thread */
  bool owed;              /* such processes wait, and none has run in the last slice */
  uint8_t above_low;      /* preempted processes that have run since the last one of low priority */
  struct timers timers;   /* of the waits of processes */
  struct timers alarm_timers; /* apart, so that a million due alarms hold up no process */
  struct signal *incoming;    /* taken from the inbox, and not yet handled; oldest first */
  struct {
    struct parting *first, *last;
  } partings; /* of ended processes: parting.h */
  struct {
    struct ties_loss ties;
    uint32_t slot;        /* of its present process */
  } loss;                 /* the node whose loss is first in `incoming`, while its ties are being fired */
  struct process **slots; /* every process made here, live or pooled; NULL: an unused slot */
  uint32_t slots_len, slots_cap;
  uint32_t holes; /* unused slots below slots_len, */
  uint32_t hole;  /* none of which is below this one */
  struct process *pool;
  uint32_t pooled;
  struct tidy tidy;
  bool scarce; /* this, and the last shortage that was attended to: budget.c */
  unsigned episode;
  int64_t mail; /* bytes in the mailboxes of its processes */
  int64_t ties; /* ends of links and monitors of its processes */
  struct quota ties_left, timers_left;
  struct isolate_meters meters;
  struct term_writer writer; /* of one encoding at a time: copy/copy.h */
  uint32_t encodings;        /* that have begun */
  struct {
    npid owner; /* NPID_NONE: there is none */
    struct term_writer writer;
  } paused;                                    /* the encoding that is suspended: copy/copy_out.c */
  struct fn_scope written, read;               /* of the messages that are encoded and decoded */
  struct multicast multicast;                  /* values that receivers of a message share */
  uint8_t bytecode[32];                        /* header of this Lua's bytecode */
  struct map factories;                        /* of functions, by hash of their bytecode */
  size_t factory_bytes;                        /* of all bodies together */
  uint32_t factory_drops;                      /* how often all factories were dropped */
  struct isolate_proto protos[ISOLATE_PROTOS]; /* functions seen lately: factory.c */
  bool knows_protos, knows_arrays;             /* of Lua: factory.c, array.c */
  struct label *labels[ISOLATE_LABELS];        /* of places where processes began lately: facts.c */
  struct buf dump;                             /* scratch */
  struct idtab alarms;                         /* of send_after, by ref */
  struct map aliases;                          /* ref -> pid that it is an address of: ties.h */
  struct whereis names;

  /* Process numbers to use next, and numbers to give back. */
  uint64_t numbers[ISOLATE_BATCH], given[ISOLATE_BATCH];
  uint32_t numbers_len, given_len;
  uint64_t ref_next, ref_end; /* of the present block of references (refs.h), */
  uint32_t ref_uses;          /* so many of which are addresses; */
  bool ref_claimed;
  struct map ref_blocks; /* and earlier blocks with addresses -> their count, an intptr_t */
};

/* A closed isolate without processes; NULL when memory ran out.  Any thread. */
struct isolate *isolate_new(struct vm *vm, const struct isolate_hooks *hooks);

/* Frees the isolate and the processes in it.  Only after the schedulers have ended. */
void isolate_free(struct isolate *iso);

/* Call it when no new process will come: the isolate closes once its last process has ended.  Any thread. */
void isolate_shut(struct isolate *iso);

/* Pushes a signal for the isolate, or for a process in it, into its inbox.  Any thread. */
void isolate_push(struct isolate *iso, struct signal *s);

/* Runs ready processes until none is ready or the slice is over; for schedulers.run. */
void isolate_run(struct runnable *r, struct scheduler *s);

_Static_assert(offsetof(struct isolate, runnable) == 0, "a pointer to an isolate is one to its runnable");
static inline struct isolate *isolate_of_runnable(struct runnable *r) {
  return (struct isolate *)r;
}

/* The isolate that owns this Lua thread. */
static inline struct isolate *isolate_of(lua_State *L) {
  void *heap;
  lua_getallocf(L, &heap);
  return (struct isolate *)((char *)heap - offsetof(struct isolate, heap));
}

/* Takes a number for a new process (0: there are too many processes), and gives back that of an ended one. */
uint64_t isolate_take_number(struct isolate *iso);
void isolate_give_number(struct isolate *iso, uint64_t number);

npid isolate_ref(struct isolate *iso);

/* Makes a reference of isolate_ref an address: signals to it reach this isolate until isolate_drop_address.
 */
int isolate_add_address(struct isolate *iso, npid ref) MUST_CHECK; /* 0 or ERR_NOMEM */
void isolate_drop_address(struct isolate *iso, npid ref);

/* Deliver a signal from a process of this isolate: directly to a process of the same isolate, else by
 * vm_deliver. */
void isolate_deliver(struct isolate *iso, struct signal *s);
void isolate_signal(struct isolate *iso, enum signal_kind kind, npid to, npid from, npid ref,
                    struct term *term);

/* The epoch of the present connection to a pid's node (nodetab_epoch). */
uint32_t isolate_epoch(const struct isolate *iso, npid to);

/* Delivers a LINK or a MONITOR that belongs to the connection with this epoch.  0 or ERR_NOMEM. */
int isolate_tie(struct isolate *iso, enum signal_kind kind, npid to, npid from, npid ref,
                uint32_t epoch) MUST_CHECK;

/* The live process of this isolate, or NULL. */
struct process *isolate_find(struct isolate *iso, npid pid);

#endif
