/* held: the processes of other nodes that take no more for now, as their nodes have told.  Any thread. */
#ifndef VM_HELD_H
#define VM_HELD_H

#include "base/map.h"
#include "core/npid.h"

#include <pthread.h>
#include <stdatomic.h>

struct held {
  atomic_size_t count; /* of pids: mostly none, and then nobody takes the lock */
  pthread_mutex_t lock;
  struct map pids;
};

void held_init(struct held *h);
void held_finish(struct held *h);

void held_put(struct held *h, npid pid, bool held); /* without memory for it nobody is held */
bool held_has(struct held *h, npid pid);
void held_drop_node(struct held *h, uint32_t incarnation);

#endif
