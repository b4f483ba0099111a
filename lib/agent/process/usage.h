/* usage: the processor time that a command has used so far, and the memory that it has.  Each file of the
 * kernel that is read takes up to 10 us.  Any thread. */
#ifndef AGENT_PROCESS_USAGE_H
#define AGENT_PROCESS_USAGE_H

#include <stdint.h>

enum { USAGE_PROCESSES = 64 }; /* the memory of a command that has more of them is not measured */

struct usage {
  int64_t run_ms; /* processor time; -1: not known */
  int64_t memory; /* bytes that are resident, a page that processes share in each of them; -1: not known */
  int files;      /* of the kernel that were read: USAGE_PROCESSES + 3 at most */
};

/* Measures the processes of a cgroup (its directory; NULL: there is none), those that have ended for their
 * time, too.  What the cgroup does not tell is that of the process `os_pid` (0: none) alone, with the time of
 * those of its children, and theirs, that were waited for. */
void usage_measure(const char *cgroup, int64_t os_pid, struct usage *out);

/* The time in ms from the text of cpu.stat, and of /proc/PID/stat; bytes from the text of /proc/PID/statm.
 * -1: it is another text. */
int64_t usage_in_cpu_stat(const char *text);
int64_t usage_in_stat(const char *text, long ticks_per_second);
int64_t usage_in_statm(const char *text, long page_size);

#endif
