/* lookup: the process that a request names, by a pid or by a registered name.  I/O thread only. */
#ifndef AGENT_API_LOOKUP_H
#define AGENT_API_LOOKUP_H

#include "agent/http/server.h"

/* Finds the pid that a text stands for: a pid in any of its forms, or a name (a local one before a global
 * one). ERR_NO_NAME, ERR_BAD_PID, ERR_NO_PROCESS for a short pid whose Node-ID this node has not given to any
 * node. */
int lookup_pid(struct agent *a, const char *text, npid *out, struct error *e) MUST_CHECK;

/* Like lookup_pid, for a request that needs a process that may exist: ERR_NO_PROCESS also for a pid of this
 * node that is not alive, and for a pid of an earlier incarnation of a node. Whether a process of another
 * node is alive is not checked. */
int lookup_process(struct agent *a, const char *text, npid *out, struct error *e) MUST_CHECK;

/* Sets ERR_NO_PROCESS, "TEXT: no such process", and returns it. */
int lookup_no_process(const char *text, struct error *e);

/* Runs lookup_process on the segment of the request's path. On failure answers the request with the error and
 * returns false. */
bool lookup_named(struct request *r, npid *out);

#endif
