/* service: tells the service manager that has started the node how it is, by the protocol of sd_notify(3):
 * one datagram of lines VARIABLE=VALUE to the socket that NOTIFY_SOCKET names.
 *
 *   READY=1 and STATUS=...   once the node runs
 *   WATCHDOG=1               twice in the time that WATCHDOG_USEC allows, while both the loop and a scheduler
 *                            go on; so the manager restarts a node of which either hangs
 *   STOPPING=1               when it begins to stop
 *
 * A node that nobody has given a socket tells nothing.  I/O thread only. */
#ifndef AGENT_SERVICE_H
#define AGENT_SERVICE_H

#include "base/err.h"

struct agent;

/* To be called after vm_start.  ERR_USAGE when the address of the socket is no path and no abstract name,
 * ERR_NOMEM, ERR_SYSTEM. */
int service_init(struct agent *a, struct error *e) MUST_CHECK;

/* Accept a node that nobody has given a socket. */
void service_ready(struct agent *a);
void service_stopping(struct agent *a);
void service_free(struct agent *a); /* when the loop has closed all handles */

#endif
