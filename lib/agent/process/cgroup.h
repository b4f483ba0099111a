/* cgroup: control groups (version 2) of commands, on hosts where the node may make them.
 *
 * Each command then runs in a group of its own, below a group of the node that lies below the group in which
 * the node was started: OWN/node.NAME.OS-PID/NUMBER.CREATION.  A group ends all of its processes at once,
 * however they have left their parents, and limits what they use.  Kernel:
 * Documentation/admin-guide/cgroup-v2.rst. I/O thread only. */
#ifndef AGENT_PROCESS_CGROUP_H
#define AGENT_PROCESS_CGROUP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroups;

/* What a group may use; 0: no limit. */
struct cgroup_limits {
  int64_t memory; /* bytes */
  int64_t cpu;    /* percent of one core */
  int64_t pids;   /* processes and threads */
};

/* Removes the groups that nodes of this user have left below the group of this process, because they were
 * killed, and that have no processes. */
void cgroups_clean(void);
void cgroups_clean_at(const char *own); /* the same with the directory: for unit tests */

/* Finds the group of this process and makes one for the node.  NULL: there is no cgroup file system of
 * version 2, or this user may not write to it, or memory ran out. */
struct cgroups *cgroups_new(const char *node);
/* The same with the directory of the own group, and the name of the node's group behind "node.": for unit
 * tests. */
struct cgroups *cgroups_new_at(const char *own, const char *name);
/* Removes the groups; those that still have processes, which commands have kept, stay.  Accepts NULL. */
void cgroups_free(struct cgroups *c);

/* Makes a group of this name.  *path is a heap string that cgroup_remove takes.  guards: the processes of
 * this node, which have to leave the own group when limits are used for the first time, because the kernel
 * limits no groups below one that has processes. ERR_PERMISSION: a limit cannot be set, and *e says why.
 * ERR_SYSTEM, ERR_NOMEM. */
int cgroup_make(struct cgroups *c, const char *name, const struct cgroup_limits *limits, const pid_t *guards,
                size_t guard_count, char **path, struct error *e) MUST_CHECK;

/* Have the guards left the own group, because limits were used? */
bool cgroups_moved(const struct cgroups *c);

bool cgroup_is_limited(const struct cgroup_limits *limits);

/* Sends SIGKILL to all processes of the group. */
void cgroup_kill(const char *path);

/* Has the kernel killed a process of the group because its memory was used up? */
bool cgroup_oom(const char *path);

/* Removes a group (path is consumed; NULL: none) and, unless `keep`, kills what is left in it. A group that
 * cannot be removed yet is removed with a later one. */
void cgroup_remove(struct cgroups *c, char *path, bool keep);

#endif
