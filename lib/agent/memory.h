/* memory: measures the memory of the node on the I/O thread, whose own work takes memory, too; logs when the
 * bound (vm/process/budget.h) is reached and left; and says what the memory is used for. */
#ifndef AGENT_MEMORY_H
#define AGENT_MEMORY_H

#include <stdint.h>

struct agent;

enum {
  MEMORY_EVERY_MS = 50,      /* the loop measures at most that often, */
  MEMORY_AT_LEAST_MS = 1000, /* and that often without other work; */
  MEMORY_SHORT_MS = 100      /* and that often while the memory is short */
};

/* Begins to measure; 0 or an error of libuv. */
int memory_init(struct agent *a);

/* The resident memory of the node in bytes, and what it is used for. */
struct memory_use {
  int64_t rss, max;  /* max: the bound; 0: none */
  int64_t processes; /* what green threads hold, and garbage of ended ones */
  int64_t unused;    /* free in the heaps of green threads */
  int64_t messages;  /* in mailboxes of green threads */
  int64_t node;      /* all other blocks: names, links, connections, output, the console; 0: unknown */
  int64_t allocator; /* pages that the allocator has beyond its blocks; 0: unknown */
};
void memory_measure(struct agent *a, struct memory_use *out);

#endif
