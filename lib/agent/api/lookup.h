/* lookup: the process that a request names, by a pid or by a registered name.  I/O thread only. */
#ifndef AGENT_API_LOOKUP_H
#define AGENT_API_LOOKUP_H

#include "agent/http/server.h"

enum lookup_of {
  LOOKUP_PID,     /* any pid */
  LOOKUP_PROCESS, /* one of a process that may exist */
};

/* Runs exactly once, maybe before lookup_find returns; pid is NPID_NONE with an error. */
typedef void lookup_done(void *data, const struct error *e, npid pid);

/* Finds the pid that a text (copied) stands for: a pid in any of its forms, or a name, a local one before a
 * global one.  Global names that the node does not have in its table are asked for, in a cluster on etcd.
 *
 * ERR_NO_NAME, ERR_BAD_PID, ERR_NO_PROCESS for a short pid whose Node-ID this node has not given to any node,
 * ERR_ETCD; with LOOKUP_PROCESS, ERR_NO_PROCESS also for a pid of this node that is not alive, and for a pid
 * of an earlier incarnation of a node.  Whether a process of another node is alive is not checked. */
void lookup_find(struct agent *a, const char *text, enum lookup_of what, lookup_done *done, void *data);

/* Finds what the segment of the request's path stands for.  `then` runs with it, unless the request was
 * answered with the error. */
typedef void lookup_then(struct request *r, npid pid);
void lookup_named(struct request *r, enum lookup_of what, lookup_then *then);

/* Sets ERR_NO_PROCESS, "TEXT: no such process", and returns it. */
int lookup_no_process(const char *text, struct error *e);

/* Sets ERR_NO_NAME, "TEXT: no process has this name", and returns it. */
int lookup_no_name(const char *text, struct error *e);

#endif
