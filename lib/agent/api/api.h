/* api: what the handlers of the HTTP interface share: how things look in its documents, and how they are
 * read. I/O thread only. */
#ifndef AGENT_API_H
#define AGENT_API_H

#include "agent/http/server.h"

/* {"pid": portable, "short": as printed}: a new object. */
json_t *api_pid(struct agent *a, npid pid);

/* A pid, or a registered name (local first, then global), as a pid.  ERR_NO_NAME, ERR_BAD_PID, ERR_NO_PROCESS
 * for a short form that stands for nothing here. */
int api_find_pid(struct agent *a, const char *text, npid *out, struct error *e) MUST_CHECK;

/* The same, as a process: also ERR_NO_PROCESS, for a pid of this node or of an earlier life of another. */
int api_find_process(struct agent *a, const char *text, npid *out, struct error *e) MUST_CHECK;

/* Is the query's key there and neither "0" nor "false"? */
bool api_flag(const struct request *r, const char *key);

#endif
