/* cputime: the processor time that a command has used so far.  A call reads one file of the kernel, which
 * takes it up to 10 us.  Any thread. */
#ifndef AGENT_PROCESS_CPUTIME_H
#define AGENT_PROCESS_CPUTIME_H

#include <stdint.h>

/* Milliseconds of all processes that are, or were, in a cgroup (cpu.stat); -1: not known. */
int64_t cputime_of_cgroup(const char *directory);

/* Milliseconds of a process, and of those of its children, and theirs, that were waited for
 * (/proc/PID/stat); -1: not known. */
int64_t cputime_of_process(int64_t pid);

/* The same from the text of these files. */
int64_t cputime_in_cpu_stat(const char *text);
int64_t cputime_in_stat(const char *text, long ticks_per_second);

#endif
