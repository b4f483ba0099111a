/* vm_host: a small host for tests of the vm: a thread that handles the signals in the host's inbox, keeps
 * global names, collects the output of processes in a buffer, and answers calls. It also receives the signals
 * for pids of the made-up node "far@there". */
#ifndef TESTS_UNIT_VM_HOST_H
#define TESTS_UNIT_VM_HOST_H

#include "base/buf.h"
#include "vm/vm.h"

#include <pthread.h>
#include <stdatomic.h>

struct host {
  struct vm *vm;
  struct nodetab *nodes;
  struct names *names, *globals;
  npid console, tester;
  uint32_t far; /* incarnation of the other node */
  pthread_t thread;
  /* A scheduler that wakes the host locks it: a test that holds it stops the schedulers. */
  pthread_mutex_t gate;
  atomic_int at_gate;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int event;
  bool stop;
  struct buf output, errors; /* under lock */
  struct signal *replies;    /* signals to the tester, newest first; under lock */
};

struct host *host_new(int schedulers, size_t heap_max, const char *path);
struct host *host_new_with(const struct vm_config *limits); /* schedulers, path and bounds are read */
void host_free(struct host *h);

/* Spawns Lua code; its output goes to the console, and with `monitor` the tester monitors it. NPID_NONE when
 * the spawn was refused: then why (256 bytes, may be NULL) has "code: text". */
npid host_spawn(struct host *h, const char *code, npid *monitor, char *why);

/* Runs code to its end, and returns its output (to be freed); "TIMEOUT" after a minute. An exit reason other
 * than "normal" is appended as "[reason]" with strings bare. */
char *host_run(struct host *h, const char *code);

/* Returns what was written to stderr since the last call; to be freed. */
char *host_errors(struct host *h);

/* Waits for a signal to the tester with this kind and ref (NPID_NONE: any); NULL after a minute.  The caller
 * frees it. */
struct signal *host_wait(struct host *h, enum signal_kind kind, npid ref);

#endif
