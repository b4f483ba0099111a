/* allocator: settings and statistics of jemalloc, which the agent is linked with.  In programs without it
 * (tools, builds with a sanitizer) the functions do nothing, and allocator_stats returns false.  Any thread.
 */
#ifndef BASE_ALLOCATOR_H
#define BASE_ALLOCATOR_H

#include <stdbool.h>
#include <stdint.h>

struct allocator_stats {
  int64_t allocated; /* bytes of all blocks that are in use */
  int64_t resident;  /* bytes of physical memory that the allocator has */
};

/* Has a thread of the allocator return freed pages to the kernel within a second.  To be called once, after
 * the last fork, as the thread does not survive it. */
void allocator_start(void);

bool allocator_stats(struct allocator_stats *out);

/* Returns all freed pages to the kernel now. */
void allocator_purge(void);

/* The resident memory of this process in bytes, as the kernel counts it; 0 when it is unknown. */
int64_t allocator_rss(void);
int64_t allocator_files(void); /* those pages of it that are of files: the program and its libraries */

/* The memory that this process may use: that of the machine, or less when one of its control groups has a
 * limit; 0 when it is unknown. */
int64_t allocator_machine(void);

#endif
