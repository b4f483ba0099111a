/* config: what a vm is given when it is made, and the bounds of every vm. */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include "core/limits.h"
#include "core/names.h"
#include "core/npid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct signal;

struct vm_config {
  struct nodetab *nodes; /* borrowed; entry 0 is this node */
  struct names *names;   /* local names; borrowed */
  struct names *globals; /* global names, which the host keeps; borrowed */
  bool asks_names;       /* globals has not all of them: others are asked for by the call "whereis" (vm.h) */
  int schedulers;        /* threads; 0: one a core */
  const char *path;      /* where require looks, and nowhere else: directories, each NUL-terminated, the last
                            one empty; copied */
  const char *library;   /* the directory of the modules that come with the node (bind/require.h); copied, or
                            NULL */
  const char *directory; /* the node's directory, absolute; copied */
  npid console; /* leader of processes that were given none; set with vm_set_console before vm_start */
  struct limits *limits;      /* borrowed; NULL: the vm has its own, with the defaults */
  size_t heap_max;            /* this, and the next three: 0: as in limits */
  uint32_t mailbox_count;     /* messages */
  size_t mailbox_bytes;       /* of messages in a mailbox (signal_weight) */
  size_t memory_max;          /* bytes of resident memory of the whole node; 0 in limits, too: no bound */
  int64_t (*rss)(void *data); /* measures it; NULL: allocator_rss */
  void (*wake)(void *data);   /* called by any thread when the host's inbox is no longer empty */
  /* A scheduler has signals for another node, oldest first, linked by `next`, and nothing else to run.  True:
   * the host has sent them, and owns them; false: they go into the host's inbox, as all others do.  NULL:
   * none is sent so. */
  bool (*direct)(void *data, struct signal *s);
  void (*awake)(void *data); /* called by a scheduler that gets work again, or looks for some, and by a
                                thread that goes on with the host's loop beside a process; or NULL */
  /* Runs one turn of the host's loop, for vm_run; false: the loop has ended.  The turn waits for an event
   * where vm_may_wait, asked at last, allows it.  Called by two threads of the vm, never by both at once.
   * NULL: the host runs its loop itself. */
  bool (*turn)(void *data);
  void *data;
};

enum {
  VM_PROCESSES_MAX = 1 << 22,  /* places in the table of processes */
  VM_STOP_PATIENCE_MS = 3000,  /* how long vm_stop waits for the scheduler threads */
  VM_OUTPUT_WINDOW = 256 << 10 /* bytes a process puts before it waits for its leader */
};

#endif
