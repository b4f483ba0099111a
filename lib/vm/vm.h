/* vm: green-thread processes and the schedulers that run them; and the table of every process of this node.
 *
 * A process is whatever has a pid and takes signals.  Green threads live in the vm; the host (the agent's I/O
 * thread) has processes of its own kinds: commands, clients, the console, and the kernel.  Both are reached
 * by the one vm_deliver, from any thread.  What is for the host, or for another node, goes into the host's
 * inbox.
 *
 * Threads: vm_new, vm_start, vm_stop, vm_free, vm_host_* by the thread that owns the vm; the rest by any. */
#ifndef VM_VM_H
#define VM_VM_H

#include "base/err.h"
#include "core/npid.h"
#include "core/signal.h"
#include "vm/config.h"
#include "vm/sched/deliver.h"
#include "vm/sched/room.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vm;
struct metrics;

/* When a mailbox is at its bound, a green thread that sends to it is suspended until there is room, and a
 * client that sends to it gets ERR_BUSY.  Senders that cannot be suspended (timers; other nodes, until flow
 * control has stopped them) go on; at twice the bound the process of the mailbox ends with the reason
 * "memory". */

/* The config is copied, but for what it says to be borrowed.  NULL with *e set. */
struct vm *vm_new(const struct vm_config *config, struct error *e);
/* Before vm_start: config.console, whose pid can only be made once the vm is there. */
void vm_set_console(struct vm *vm, npid console);
/* Starts the scheduler threads.  A code with *e set: vm_stop is to be called then, too. */
int vm_start(struct vm *vm, struct error *e) MUST_CHECK;

/* Runs the host's loop until config.turn has returned false; after vm_start. */
void vm_run(struct vm *vm);

/* In a turn of the loop: true unless the turn has woken a process that its thread is to run afterwards. */
bool vm_may_wait(const struct vm *vm);

/* The processor time of the threads that run the loop, in nanoseconds; -1: they do not run. */
int64_t vm_loop_ns(const struct vm *vm);

/* Stops the scheduler threads, each at the end of its slice, and joins them.  ERR_TIMEOUT: a call that cannot
 * be interrupted (reading a file of a server that does not answer, for example) has held a thread for
 * VM_STOP_PATIENCE_MS.  That thread does not call the host any more, but still uses the vm, so vm_free then
 * frees nothing. */
int vm_stop(struct vm *vm) MUST_CHECK;
void vm_free(struct vm *vm);

/* Takes all signals out of the host's inbox, oldest first, linked by next; the caller owns them. */
struct signal *vm_host_take(struct vm *vm);
/* The inbox itself, for whoever only looks whether it is empty; valid as long as the vm. */
const struct inbox *vm_host_inbox(const struct vm *vm);

/* Gives a pid to a process of the host; vm_host_process returns its object.  ERR_BUSY at LIMIT_PROCESSES; but
 * PTAB_SPARE places are kept for the host, so that tools and commands work where green threads take all. */
int vm_host_add(struct vm *vm, void *object, npid *out) MUST_CHECK;
void vm_host_remove(struct vm *vm, npid pid);
void *vm_host_process(struct vm *vm, npid pid); /* NULL when it is no live process of the host */

enum { VM_WHAT_SIZE = 80, VM_PLACE_SIZE = 80, VM_POLLERS = 2 /* threads that run the host's loop */ };

/* What is known of a live process without asking it.  Of a process of the host: pid, place and host only. */
struct vm_row {
  npid pid, leader;
  uint32_t place;          /* the cursor by which the list begins with it */
  void *host;              /* the object of a process of the host; NULL: a green thread */
  const char *state;       /* a word: ready running receive sleep call send */
  const char *priority;    /* a word: low normal high; NULL of a process of the host */
  int64_t started_ns;      /* clock_ns */
  int64_t memory;          /* bytes */
  int64_t run_ms;          /* for how long it has run, as the ticks of its scheduler found it running */
  uint32_t mailbox;        /* messages */
  char what[VM_WHAT_SIZE]; /* where its code begins, file:line, or "" while that is not known */
};

/* Writes up to max live processes of any kind, from *cursor on (0: the first), and moves the cursor, to
 * VM_ROWS_END after the last one.  Returns how many; it may be 0 before the end, because a call looks at
 * VM_ROWS_LOOK places of the table at most.  The order is that of the table: of the pids, until numbers are
 * used again.  A process that lives all the while is listed once. */
enum { VM_ROWS_LOOK = 16384 };
#define VM_ROWS_END UINT32_MAX
size_t vm_rows(struct vm *vm, uint32_t *cursor, struct vm_row *out, size_t max);

/* Starts a green thread from a CALL whose term is ["spawn", spec]; consumes the signal.  spec is a MAP:
 *   one of    "lua": source [, "chunk": its name in messages]    ·  "module", "function"  ·  "fn": FN
 *   "args":   LIST                        (for lua: the chunk's `...`)
 *   "priority": "low" or "high"
 *   "leader": pid [, "link": pid] [, "monitor": [pid, ref]] [, "name": local name]
 *   "lease": pid                        a process that is sent LINK before the code is loaded
 * A REPLY to the caller follows: [true, pid] once the code is loaded and its process exists (link, monitor
 * and name are in place before it runs), or [false, "code", text] / [false, "name_taken", text] / ….  A
 * "module" is required in the new process before the reply: a missing one is an error of the spawn. */
void vm_spawn(struct vm *vm, struct signal *call);

/* Tells every isolate that a connection, by its number (nodetab_part), is gone: links and monitors across it
 * fire with reason, calls fail. */
void vm_node_down(struct vm *vm, uint32_t incarnation, uint32_t epoch, const char *reason);

struct vm_stats {
  int64_t processes; /* live green threads */
  int64_t isolates;
  int64_t spawned;  /* since the start */
  int64_t messages; /* delivered to green threads since the start; approximate while running */
  int schedulers;
  int64_t heaps;      /* bytes that are charged to processes, or were to ended ones */
  int64_t reserved;   /* bytes that heaps have from the kernel and from malloc */
  int64_t large;      /* those of malloc among them */
  int64_t mail;       /* bytes in mailboxes of green threads */
  int64_t tables;     /* bytes of the table of processes that were ever used */
  int64_t timers;     /* of send_after */
  int64_t ties;       /* ends of links and monitors of green threads */
  int64_t rss;        /* resident memory of the node, as last measured, */
  int64_t memory_max; /* its bound (0: none), */
  int64_t shortages;  /* how often it was reached, */
  bool is_short;      /* and is it so now? */
};
void vm_stats(struct vm *vm, struct vm_stats *out);

/* Writes the metrics of the vm and of each scheduler; by the thread that owns the vm. */
void vm_metrics(struct vm *vm, struct metrics *out);

/* The most that one green thread holds.  Looks at each place of the table of processes that was ever used, so
 * it takes milliseconds where there were a million. */
struct vm_largest {
  int64_t memory;   /* bytes */
  int64_t messages; /* in its mailbox */
  int64_t mail;     /* bytes of these, in whole KiB */
  int64_t files;    /* open */
  int64_t unread;   /* nanoseconds since its mailbox was last empty, to within a tenth of a second */
};
void vm_find_largest(struct vm *vm, struct vm_largest *out);
void vm_largest_metrics(const struct vm_largest *largest, struct metrics *out);

/* Measures the memory of the node.  Schedulers do so while they are busy; the host calls it now and then, as
 * its own work takes memory, too. */
void vm_measure(struct vm *vm);

/* Is the memory over its bound, by the last measurement? */
bool vm_is_short(struct vm *vm);

/* Is the scheduler with this index (below vm_stats.schedulers; VM_POLLERS more are the threads of the host's
 * loop, while they run a green thread) held?  As preempt_pulse; any thread. */
struct vm_pulse {
  unsigned progress, switches;
  bool idle;
  npid pid;                  /* the green thread that holds it; NPID_NONE: none, or it has ended */
  char what[VM_WHAT_SIZE];   /* where its code begins; "" while that is not known */
  char place[VM_PLACE_SIZE]; /* where in its code it was as the hold ended; "": not known */
};
void vm_pulse(struct vm *vm, int scheduler, struct vm_pulse *out);

/* Fills in pid, what and place.  asks: the hold has not ended; the place is noted when it ends, for a later
 * call with the same pulse. */
void vm_pulse_who(struct vm *vm, int scheduler, bool asks, struct vm_pulse *pulse);

/* --- what green threads ask of the host -------------------------------------------------------------------
 * A CALL to NPID_KERNEL (this node's) or to npid_kernel_of(remote pid), answered by a REPLY to its `from`
 * with its `ref`: [true, values…] or [false, wire name, text].  The green thread's Lua function suspends
 * until then, returns the values, or raises the text.
 *
 *   "spawn", spec             -> pid          (as above; to a remote kernel: spawn there)
 *   "exec", spec              -> pid          spec MAP: "argv": LIST of STR [, "cwd", "env": MAP, "name",
 *                                             "leader": pid, "link": pid, "monitor": [pid, ref],
 *                                             "owner": pid, which it ends with, "timeout": ms,
 *                                             "kill_after": ms from TERM to KILL,
 *                                             "libexec": boolean, the first word is a helper's name,
 *                                             "keep": boolean (agent/process/command.h),
 *                                             "stdin": boolean, it has a pipe as its standard input,
 *                                             "tty": MAP of "rows", "cols": integers and "term": STR,
 *                                             "limits": MAP of "memory": bytes, "cpu": percent of one core,
 *                                             and "pids": processes and threads,
 *                                             "user", "umask": STR of octal digits, "nice": integer]
 *   "connect", node           -> pid          the kernel there (number 0)
 *   "disconnect", node        -> boolean
 *   "nodes"                   -> LIST of STR  connected nodes
 *   "ping", node              -> integer      round trip in microseconds
 *   "monitor_nodes", boolean  -> nothing      "nodeup"/"nodedown" messages to the caller
 *   "register", name, pid     -> boolean      global name; false: taken
 *   "re_register", name, pid  -> true         global name, whoever has it
 *   "unregister", name        -> boolean
 *   "whereis", name           -> pid, token   of a global name; nothing: no process has it
 *   "send", name, LIST        -> nothing      to a local name of that node (no reply wanted)
 *   "send_all", LIST, LIST    -> nothing      the values to these pids of that node (no reply wanted)
 *
 * whereis of a global name that vm_config.globals has needs no call; nor does any other one, unless
 * vm_config.asks_names.
 *
 * CALL "flush" to a pid that is a group leader: [true] once the output sent before it is below the leader's
 * bound.  Every process answers some calls by itself: "flush" and "alive" -> [true], "info" and
 * "process_info" -> [true, MAP], the latter with its ties; any other call -> [false, "usage", …].  A call to
 * a process that an earlier signal has ended is answered as a call to a pid without a process. */

/* --- output ------------------------------------------------------------------------------------------------
 * puts/print send the message ("stdout", self, bytes) to the group leader, errors ("stderr", self, bytes);
 * after each VM_OUTPUT_WINDOW bytes a process suspends in a "flush" call to the leader. */

#endif
