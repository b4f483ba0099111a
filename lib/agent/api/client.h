/* client: shell tools as processes: a mailbox, whose messages go to the tool as a stream of JSON lines; and a
 * monitor, which tells it how a process ended.  Each is a process of kind "client" for as long as its tool
 * stays connected.  Also what an exit reason means as an exit status.  I/O thread only. */
#ifndef AGENT_API_CLIENT_H
#define AGENT_API_CLIENT_H

#include "agent/http/server.h"
#include "core/term.h"

/* The exit status that a reason ([reason], or NULL) stands for, as the shell has them: 0 normal, n for
 * {"exit", n}, 128+n for {"signal", n}, 124 timeout, 125 a lost process, 137 killed, 143 shutdown, else 1. */
int reason_status(const struct term *reason);

/* {key: the reason as a value, "status": n}: a new object. */
json_t *client_end(struct agent *a, const char *key, const struct term *reason, int status);

#endif
