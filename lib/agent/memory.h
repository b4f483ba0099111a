/* memory: measures the memory of the node on the I/O thread, whose own work takes memory, too; logs when the
 * bound (vm/process/budget.h) is reached and left; and says what the memory is used for. */
#ifndef AGENT_MEMORY_H
#define AGENT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct agent;
struct metrics;

enum {
  MEMORY_EVERY_MS = 50,      /* the loop measures at most that often, */
  MEMORY_AT_LEAST_MS = 1000, /* and that often without other work; */
  MEMORY_SHORT_MS = 100      /* and that often while the memory is short */
};

/* Begins to measure; 0 or an error of libuv. */
int memory_init(struct agent *a);

/* The resident memory of the node in bytes, and what it is used for: all but rss and max add up to rss,
 * within a fifth.  0 stands for what is not known. */
struct memory_use {
  int64_t rss, max;  /* max: the bound; 0: none */
  int64_t program;   /* pages of files: the program and its libraries */
  int64_t processes; /* what green threads hold, and garbage of ended ones */
  int64_t unused;    /* free in the heaps of green threads */
  int64_t messages;  /* in mailboxes of green threads */
  int64_t tables;    /* the table of processes */
  int64_t links;     /* data that waits for other nodes, */
  int64_t clients;   /* for clients, and bodies of their requests, */
  int64_t commands;  /* for the standard inputs of commands, and their output that is kept, */
  int64_t output;    /* for the console and the log */
  int64_t node;      /* all other blocks: names, connections, nodes */
  int64_t allocator; /* pages that the allocator has beyond its blocks */
};
/* links: what waits for other nodes (mesh_use). */
void memory_measure(struct agent *a, size_t links, struct memory_use *out);

/* Calls fn for each use, in their order above. */
void memory_each_use(const struct memory_use *m, void (*fn)(void *data, const char *name, int64_t bytes),
                     void *data);
void memory_metrics(struct agent *a, size_t links, struct metrics *out);

#endif
