/* budget: the bound on the memory of the whole node (vm_config.memory_max), beside those of a process and of
 * a mailbox.  What counts is the resident memory of the operating system's process.
 *
 * Over the bound the memory is SHORT: the processes that hold more than their share, half of the bound
 * divided by the number of processes, fail to spawn and to send.  Mailboxes that have more than that share
 * count as full, so that who sends to them waits; those of other processes go on, as one that holds much may
 * need a message in order to free it.  A sixteenth above the bound it is CRITICAL: then nothing is spawned,
 * and of the processes over their share that allocate, one after the other ends with the reason "memory"; a
 * quarter above it, each of them does.  Each isolate collects its garbage when the memory becomes short.  The
 * shortage ends a sixteenth below the bound.
 *
 * Processes that are not over their share together hold at most half of the bound; so while the memory is
 * short, some process is over its share, or the memory is not that of processes. */
#ifndef VM_PROCESS_BUDGET_H
#define VM_PROCESS_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct isolate;
struct process;
struct scheduler;
struct vm;

enum {
  BUDGET_TICKS = 20,              /* a busy scheduler measures every so many ticks */
  BUDGET_SHARE_LEAST = 256 << 10, /* bytes that every process may hold */
  BUDGET_PAUSE_NS = 100000000,    /* between the ends of two processes */
};

/* Measures the memory of the node, and changes the level by it.  Any thread. */
void budget_measure(struct vm *vm);

/* Does so when the scheduler has been busy for BUDGET_TICKS since it last measured.  By the scheduler's
 * thread. */
void budget_tick(struct vm *vm, struct scheduler *s);

/* Collects the isolate's garbage once a shortage, and lets full mailboxes be filled again after it.  Called
 * by the scheduler that runs the isolate, in each slice. */
void budget_attend(struct isolate *iso);

/* While isolate.scarce is true, which budget_attend keeps: must the running process not spawn or send now?
 * May collect its isolate's garbage. */
bool budget_denies_send(struct process *p);
bool budget_denies_spawn(struct process *p);

/* The bytes that the process may hold in its next turn, while isolate.scarce is true. */
int64_t budget_limit(const struct process *p);

/* Bytes from which on a mailbox is full, while isolate.scarce is true. */
uint64_t budget_mailbox(const struct vm *vm);

#define BUDGET_TEXT "the node has reached its memory bound (--max-memory)"

#endif
